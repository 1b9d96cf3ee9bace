package preview

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// generation replaces the session's number, which a sidecar writes into the header.
const generation = "offline"

// Output formats of [Config].
const (
	Full  = "full"
	Block = "block"
)

// ConfigOptions configures [Config].
type ConfigOptions struct {
	File           string
	Policy         string
	Namespace      string
	ServiceAccount string
	Pod            string
	// Controller is empty for a pod without one. ControllerNamed is false if no flag names it.
	Controller      string
	ControllerNamed bool
	Version         string
	// Delivery replaces [policy.DeliveryAuto], which depends on the pod; empty means sigv4.
	Delivery policy.Delivery
	Output   string
	// Destination is the destination of a snippet; if empty, the only one that fits.
	Destination string
}

// The relay's port and password file, as in a sidecar. A pod's relay chooses its port when
// it starts, so 0 is printed here.
const (
	relayAddress  = "127.0.0.1:0"
	relayPassword = sidecarconfig.CredentialsDir + "/relay-password"
)

// checkConfiguration returns an error if the text is a Kubernetes object. Other text is for
// promconfig to judge.
func checkConfiguration(text []byte) error {
	// A large configuration is not parsed twice.
	if !bytes.Contains(text, []byte("apiVersion")) || !bytes.Contains(text, []byte("kind")) {
		return nil
	}
	var o struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
	}
	if err := yaml.Unmarshal(text, &o); err != nil || o.APIVersion == "" || o.Kind == "" {
		return nil //nolint:nilerr // promconfig reports what is not YAML
	}
	return fmt.Errorf("it is a Kubernetes object (%s, %s): config takes the Prometheus configuration, a prometheus.yml; "+
		"for a Pod use ampbridge inject", o.APIVersion, o.Kind)
}

// Config prints the Prometheus configuration of a pod, or its remote_write blocks.
func Config(o ConfigOptions, stdin io.Reader, stdout, stderr io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	subject := policy.Subject{Namespace: o.Namespace, ServiceAccount: o.ServiceAccount}
	entitlement, granted := p.Entitled(subject)
	if !granted {
		text := fmt.Sprintf("not granted: no grant of %s covers service account %s of namespace %s", o.Policy, o.ServiceAccount, o.Namespace)
		if near := p.NearMiss(subject); near != "" {
			text += ": " + near
		}
		return errors.New(text)
	}
	var version policy.Version
	if o.Version != "" {
		if version, err = policy.ParseVersion(o.Version); err != nil {
			return err
		}
	}
	if IsSnippet(o.Output) {
		return writeSnippet(o, p, subject, version, stdout, stderr)
	}
	if entitlement, granted = p.EntitledAs(subject, policy.ModePrometheus); !granted {
		return fmt.Errorf("the grants of service account %s of namespace %s do not have mode prometheus, so there is no "+
			"configuration to edit: write a snippet for the program with -o (%s); docs/guides/collectors.md has Thanos Ruler and others",
			o.ServiceAccount, o.Namespace, strings.Join(writers(), ", "))
	}
	if entitlement.HA != "" {
		entitlement.HA = p.Group(entitlement.HA, subject, policy.Workload{Controller: o.Controller}, "")
	}
	var blocks []policy.Block
	undecided := false // whether the delivery of a block depends on the pod
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	for _, d := range sidecarconfig.New(p, entitlement).Destinations {
		if d.Replica && (o.Pod == "" || !o.ControllerNamed) {
			return usage.Errorf("the grant sets ha, so the block needs the names of the pod and its controller: set --pod and --controller, "+
				"such as --pod prometheus-k8s-0 --controller prometheus-k8s (for a pod without a controller: --controller %q)", "")
		}
		block := d.For(o.Pod)
		delivery, text := deliveryOf(d, o.Delivery)
		if delivery == policy.DeliveryRelay {
			block = block.ByRelay(relayAddress, relayPassword)
		}
		if text != "" {
			note("%s: %s", d.Name, text)
		}
		undecided = undecided || d.Delivery == policy.DeliveryAuto && o.Delivery == ""
		block, omitted := block.For(version)
		blocks = append(blocks, block)
		for _, field := range omitted {
			note("%s has no %s, which needs Prometheus %s: the sidecar adds it when it knows the version; set "+
				"--prometheus-version to see it", d.Name, field.Field, field.Since)
		}
	}
	if o.Output == Block {
		if err := writeNotes(stderr, notes); err != nil {
			return err
		}
		if undecided {
			// A reader of the block in a file does not see stderr.
			if _, err := fmt.Fprintln(stdout, "# For pods that get sigv4. Pods that get relay have the block of --delivery relay."); err != nil {
				return err
			}
		}
		encoder := yaml.NewEncoder(stdout)
		encoder.SetIndent(2)
		if err := encoder.Encode(map[string][]policy.Block{"remote_write": blocks}); err != nil {
			return err
		}
		return encoder.Close()
	}
	text, err := policyfile.Read(o.File, stdin)
	if err != nil {
		return err
	}
	if text, err = unzip(text); err != nil {
		return fmt.Errorf("%s: %w", o.File, err)
	}
	if err := checkConfiguration(text); err != nil {
		return fmt.Errorf("%s: %w", o.File, err)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		note("%s is empty: config takes the Prometheus configuration (prometheus.yml)", o.File)
	}
	if err := checkMemory(text, p); err != nil {
		note("%s: %v", o.File, err)
	}
	result, err := promconfig.Render(text, blocks, generation)
	if err != nil {
		return fmt.Errorf("%s: %w", o.File, err)
	}
	for _, skipped := range result.Skipped {
		note("%s is left out: %s", strings.TrimSuffix(strings.TrimPrefix(skipped.Name, policy.BlockName("")), ".relay"), skipped.Reason)
	}
	// An error is printed alone: notes before it would look like its cause.
	if err := writeNotes(stderr, notes); err != nil {
		return err
	}
	_, err = stdout.Write(result.Config)
	return err
}

func writeNotes(w io.Writer, notes []string) error {
	for _, text := range notes {
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

// checkMemory returns an error if a sidecar with the policy's memory limit could not edit the
// configuration.
func checkMemory(config []byte, p *policy.Policy) error {
	text := string(p.Sidecar.Resources.Limits.Memory)
	if text == "" {
		return nil
	}
	limit, err := resource.ParseQuantity(text)
	if err != nil {
		return fmt.Errorf("sidecar.resources.limits.memory: %w", err)
	}
	if need := promconfig.Needs(config); need > sidecarconfig.BudgetOf(limit.Value()).Edit {
		return sidecarconfig.TooLarge(int64(len(config)), need, limit.Value())
	}
	return nil
}

// deliveryOf returns the delivery for a destination and a note about it. Without a
// pod, auto is not decided.
func deliveryOf(d sidecarconfig.Destination, asked policy.Delivery) (policy.Delivery, string) {
	const port = "relay: port 0 is a placeholder for the port that a pod's relay gets when it starts"
	switch {
	case d.Delivery == policy.DeliveryRelay && asked == policy.DeliverySigV4:
		return d.Delivery, "--delivery sigv4 is ignored, because the policy sets relay; " + port
	case d.Delivery == policy.DeliverySigV4 && asked == policy.DeliveryRelay:
		return d.Delivery, "--delivery relay is ignored, because the policy sets sigv4"
	case d.Delivery == policy.DeliveryRelay || d.Delivery == policy.DeliveryAuto && asked == policy.DeliveryRelay:
		return policy.DeliveryRelay, port
	case d.Delivery == policy.DeliveryAuto && asked == "":
		return policy.DeliverySigV4, "delivery auto: this is the block for a pod that gets sigv4; --delivery relay shows " +
			"the other block, and ampbridge inject shows which one a pod gets, and why"
	}
	return policy.DeliverySigV4, ""
}

// unzip unpacks gzipped text. It checks the first bytes, because standard input has no
// name.
func unzip(text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		return text, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	unpacked, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return unpacked, r.Close()
}
