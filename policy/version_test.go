package policy

import (
	"slices"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"3.15.0": {3, 15}, "v2.26.0": {2, 26}, "2.42.0+ds": {2, 42}, "3.1.0-rc.0": {3, 1}, "2.53": {2, 53}, "2.42.0~rc1": {2, 42},
	} {
		if got, err := ParseVersion(text); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "3", "v", "3.x", "x.3", "-1.2", "99999999999999999999.1", "2.26x"} {
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
	}{{Version{}, false, false}, {Version{2, 39}, false, false}, {Version{2, 40}, true, false}, {Version{2, 51}, true, false},
		{Version{2, 52}, true, true}, {Version{3, 15}, true, true}} {
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

// TestNewerFields come out of the policy, and the rest of the block is as it
// was: its hash tells whether a pod is outdated.
func TestNewerFields(t *testing.T) {
	d := load(t, "minimal.yaml").Destinations[0]
	before, _ := d.Block("dev").For(Version{})
	d.RemoteWrite.SendNativeHistograms = true
	if err := d.RemoteWrite.QueueConfig.SampleAgeLimit.UnmarshalText([]byte("1h30m")); err != nil {
		t.Fatal(err)
	}
	b := d.Block("dev")
	if !b.SendNativeHistograms || b.QueueConfig.SampleAgeLimit != "1h30m" {
		t.Errorf("block:\n%s", blockYAML(t, b))
	}
	if after, _ := b.For(Version{}); blockYAML(t, after) != blockYAML(t, before) {
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
