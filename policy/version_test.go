package policy

import (
	"slices"
	"testing"
	"time"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"3.15.0": {3, 15}, "v2.26.0": {2, 26}, "2.42.0+ds": {2, 42}, "3.1.0-rc.0": {3, 1}, "2.53": {2, 53}, "2.42.0~rc1": {2, 42},
		"2.26-ä": {2, 26}, "999999.000001.": {999999, 1},
	} {
		if got, err := ParseVersion(text); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "3", "v", "3.x", "x.3", "-1.2", "99999999999999999999.1", "2.26x",
		"1234567.1", "1.1234567", "2.26\n", "2.26.0\nx", "2.26ä", "vv2.26", "2..26", "2.", " 2.26"} {
		if got, err := ParseVersion(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestVersionsInOrder(t *testing.T) {
	versions := []Version{{}, {2, 26}, {2, 40}, {2, 100}, {3, 0}, {3, 1}}
	for i, v := range versions {
		for j, w := range versions {
			if v.Before(w) != (i < j) {
				t.Errorf("%s before %s: %t", v, w, v.Before(w))
			}
		}
	}
}

// TestBlockFor: what a Prometheus does not know is left out, and what nobody
// asked for is not missed.
func TestBlockFor(t *testing.T) {
	plain := load(t, "minimal.yaml").Destinations[0].Block("dev")
	newer := plain
	newer.SendNativeHistograms, newer.QueueConfig.SampleAgeLimit = true, "30m"
	for _, c := range []struct {
		version         Version
		histograms, age bool
	}{{Version{}, false, false}, {Version{2, 39}, false, false}, {Version{2, 40}, true, false}, {Version{2, 49}, true, false},
		{Version{2, 50}, true, true}, {Version{3, 15}, true, true}} {
		got, omitted := newer.For(c.version)
		var fields []string
		if !c.histograms {
			fields = append(fields, "send_native_histograms")
		}
		if !c.age {
			fields = append(fields, "queue_config.sample_age_limit")
		}
		if got.SendNativeHistograms != c.histograms || (got.QueueConfig.SampleAgeLimit != "") != c.age {
			t.Errorf("%s: %s", c.version, blockYAML(t, got))
		}
		if !slices.EqualFunc(
			omitted,
			fields,
			func(o Omission, field string) bool { return o.Field == field && c.version.Before(o.Since) },
		) {
			t.Errorf("%s: omitted %v, want %v", c.version, omitted, fields)
		}
		if got, omitted := plain.For(c.version); blockYAML(t, got) != blockYAML(t, plain) || omitted != nil {
			t.Errorf("%s: a block without newer fields: omitted %v", c.version, omitted)
		}
	}
	if !newer.SendNativeHistograms {
		t.Error("For changes its receiver")
	}
}

// everyField returns the block of a policy that sets every option, and the same block
// for the relay.
func everyField(t *testing.T) (bySigV4, byRelay Block) {
	t.Helper()
	d := load(t, "full.yaml").Destinations[0]
	d.RemoteWrite.SendNativeHistograms, d.RemoteWrite.ProxyURL, d.RemoteWrite.ProxyFromEnvironment = true, "", true
	q := &d.RemoteWrite.QueueConfig
	q.MinShards, q.MinBackoff, q.MaxBackoff, q.SampleAgeLimit = 2, Duration(time.Second), Duration(time.Minute), Duration(time.Hour)
	b := d.Block("dev")
	return b, b.ByRelay("127.0.0.1:39999", "/secret/relay-password")
}

// TestNewerFields: each field comes with the first version that knows it, and not before.
// The rest of the block stays as it was: its hash shows that a pod is outdated.
func TestNewerFields(t *testing.T) {
	bySigV4, byRelay := everyField(t)
	seen := map[string]bool{}
	for _, f := range newerFields {
		for kind, b := range map[string]Block{"sigv4": bySigV4, "relay": byRelay} {
			if !f.set(&b) {
				continue
			}
			seen[f.name] = true
			if kind == "sigv4" && !oldestSigV4.Before(f.since) {
				continue // every version with sigv4 knows it
			}
			before, omitted := b.For(Version{f.since.Major, f.since.Minor - 1})
			if f.set(&before) || f.name != "name" && !slices.Contains(omitted, Omission{f.name, f.since}) {
				t.Errorf("%s, %s: a version before %s gets it, or does not hear that it lacks it: %v", f.name, kind, f.since, omitted)
			}
			after, omitted := b.For(f.since)
			if !f.set(&after) || slices.Contains(omitted, Omission{f.name, f.since}) {
				t.Errorf("%s, %s: version %s does not get it", f.name, kind, f.since)
			}
		}
		if !seen[f.name] {
			t.Errorf("%s: no option of the policy sets it", f.name)
		}
	}
	plain := load(t, "full.yaml").Destinations[1]
	oldest, _ := plain.Block("dev").For(Version{})
	plain.RemoteWrite.SendNativeHistograms, plain.RemoteWrite.SendExemplars = true, true
	if after, _ := plain.Block("dev").For(Version{}); blockYAML(t, after) != blockYAML(t, oldest) {
		t.Errorf("the oldest form:\n%s", blockYAML(t, after))
	}
}

func TestTokenSource(t *testing.T) {
	const head = "apiVersion: ampbridge.io/v1alpha1\nkind: Policy\ncluster: {name: dev}\ntrust: {manage: none}\n" +
		"destinations: [{name: central, workspace: 'arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd'}]\n"
	for token, audience := range map[string]string{
		"": "sts.amazonaws.com", "token: {source: projected}": "sts.amazonaws.com",
		"token: {source: azure}": "api://AzureADTokenExchange", "token: {source: azure, audience: other}": "other",
	} {
		p, err := Parse([]byte(head + token))
		if err != nil || p.Token.Audience != audience {
			t.Errorf("%s: %v, want audience %s", token, err, audience)
		}
	}
	if _, err := Parse([]byte(head + "token: {source: vault}")); err == nil {
		t.Error("token.source vault is read")
	}
}
