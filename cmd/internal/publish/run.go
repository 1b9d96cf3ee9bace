package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
)

const (
	// DefaultRetain is longer than a day, which is the longest token that the policy allows, plus the
	// time for which verifiers cache a key set.
	DefaultRetain = 48 * time.Hour
	// MinRetain is the shortest [Options.Retain].
	MinRetain = time.Hour
	// attempts limits the retries if somebody else publishes at the same time.
	attempts = 5
)

// Options configures [Run].
type Options struct {
	// To is s3://bucket/prefix or a folder.
	To         string
	Kubeconfig string
	Overrides  kube.Overrides
	// Keys and Discovery are files to read instead of the API server's answers.
	Keys, Discovery string
	// Issuer is the expected issuer. With Ahead, the API server does not use it yet.
	Issuer string
	Ahead  bool
	Retain time.Duration
	Prune  bool
	DryRun bool
	// Region is the bucket's region; if empty, that of the issuer's host, or the SDK's.
	Region string
	// Output is the format of the report; empty means text.
	Output string
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// Run prints what it will publish, and writes it.
func Run(ctx context.Context, o Options, stdout io.Writer) error {
	source, err := o.source(ctx)
	if err != nil {
		return err
	}
	who, err := o.issuer(source.discovery)
	if err != nil {
		return err
	}
	place, err := o.place(ctx, who)
	if err != nil {
		return err
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	for attempt := 1; ; attempt++ {
		in := Input{Issuer: who, Current: source.keys, Retain: o.Retain, Prune: o.Prune, Now: now()}
		err := publishOnce(ctx, place, in, o, stdout)
		if !errors.Is(err, errChanged) || attempt == attempts {
			return err
		}
		if _, err := fmt.Fprintf(o.text(stdout), "%s was changed by another program in the meantime: trying again\n", place); err != nil {
			return err
		}
	}
}

// text returns where the lines of a text report go.
func (o *Options) text(stdout io.Writer) io.Writer {
	if o.Output == "" || o.Output == output.Text {
		return stdout
	}
	return io.Discard
}

// issuer returns the issuer to publish for: the expected one, or else the cluster's.
func (o *Options) issuer(found policy.Issuer) (policy.Issuer, error) {
	expected := policy.Issuer(o.Issuer)
	if expected != "" {
		if err := expected.Validate(); err != nil {
			return "", usage.Errorf("--issuer: %v", err)
		}
	}
	who := expected
	switch {
	case expected == "":
		who = found
	case found != "" && found != expected && !o.Ahead:
		return "", fmt.Errorf(
			"the cluster's issuer is %s, --issuer is %s: they must be the same byte for byte; if the API server is to be "+
				"switched to it next, add --ahead",
			found,
			expected,
		)
	}
	if host, _, _ := strings.Cut(who.Host(), "/"); internalHost(host) {
		return "", fmt.Errorf(
			"AWS cannot reach the host of the issuer %s: give the API server an issuer with a public name "+
				"(--service-account-issuer), and publish it before that with --issuer and --ahead",
			who,
		)
	}
	return who, nil
}

// internalHost reports whether only a cluster or a private network can resolve the host.
func internalHost(host string) bool {
	return net.ParseIP(host) != nil || !strings.Contains(host, ".") || strings.HasSuffix(host, ".local") ||
		strings.HasSuffix(host, ".svc") ||
		strings.HasSuffix(host, ".internal")
}

// publishOnce makes one attempt. After [errChanged] the caller tries again.
func publishOnce(ctx context.Context, place place, in Input, o Options, stdout io.Writer) error {
	old, err := readPlace(ctx, place)
	if err != nil {
		return err
	}
	if old.discovery.data != nil {
		found, err := ParseDiscovery(old.discovery.data)
		if err != nil {
			return fmt.Errorf("%s: %s: %w; nothing was written", place, DiscoveryPath, err)
		}
		if err := CheckPlace(found, in.Issuer); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
	}
	if old.keys.data != nil {
		if in.Published, err = ParseKeys(old.keys.data); err != nil {
			return fmt.Errorf("%s: %s: %w; nothing was written", place, KeysPath, err)
		}
	}
	if old.state.data != nil {
		if in.State, err = ParseState(old.state.data); err != nil {
			return fmt.Errorf("%s: %s: %w; delete it: keys then stay for another %s", place, StatePath, err, in.Retain)
		}
	}
	p, err := Publish(in)
	if err != nil {
		return fmt.Errorf("%s: %w; nothing was written", place, err)
	}
	text := o.text(stdout)
	if _, err := io.WriteString(text, p.Text(in)); err != nil {
		return err
	}
	report := p.report(in, place.String(), o.DryRun)
	if o.DryRun {
		return o.close(stdout, report, "dry run: nothing was written")
	}
	// Keys are written before the document that points to them. The state is written last, because
	// without it keys stay longer, never shorter.
	for _, f := range []struct {
		name        string
		old         object
		text        []byte
		contentType string
		public      bool
	}{
		{KeysPath, old.keys, Encode(p.Keys), "application/jwk-set+json", true},
		{DiscoveryPath, old.discovery, p.Discovery.Encode(), "application/json", true},
		{StatePath, old.state, p.State.Encode(), "application/json", false},
	} {
		if string(f.old.data) == string(f.text) {
			continue
		}
		if err := place.write(ctx, f.name, f.old, content{f.text, f.contentType, f.public}); err != nil {
			return fmt.Errorf("%s: %s: %w", place, f.name, err)
		}
		report.Written = append(report.Written, f.name)
		if _, err := fmt.Fprintf(text, "wrote %s/%s\n", place, f.name); err != nil {
			return err
		}
	}
	if len(report.Written) == 0 {
		return o.close(stdout, report, fmt.Sprintf("%s: up to date", place))
	}
	return o.close(stdout, report, "")
}

// close writes the last line of a text report, or the whole report for programs.
func (o *Options) close(stdout io.Writer, r Report, line string) error {
	switch {
	case o.text(stdout) != stdout:
		return output.Write(stdout, o.Output, r)
	case line == "":
		return nil
	}
	_, err := fmt.Fprintln(stdout, line)
	return err
}

// publishedFiles are the files of a place, each without data if it does not exist.
type publishedFiles struct{ keys, discovery, state object }

func readPlace(ctx context.Context, place place) (s publishedFiles, err error) {
	for name, into := range map[string]*object{KeysPath: &s.keys, DiscoveryPath: &s.discovery, StatePath: &s.state} {
		if *into, err = place.read(ctx, name); err != nil {
			return s, fmt.Errorf("%s: %s: %w", place, name, err)
		}
	}
	return s, nil
}
