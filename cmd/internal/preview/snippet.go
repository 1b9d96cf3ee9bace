package preview

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// Output formats of [Config] that are snippets for other programs.
const (
	PrometheusOperator  = "prometheus-operator"
	PrometheusChart     = "prometheus-chart"
	KubePrometheusStack = "kube-prometheus-stack"
	OpenTelemetry       = "opentelemetry"
	VMAgent             = "vmagent"
	Alloy               = "alloy"
	Grafana             = "grafana"
)

// snippet is one of them.
type snippet struct {
	name string
	// container is the usual name of the program's container, for the annotation.
	container string
	// reads: the program queries; it writes otherwise.
	reads bool
	// relays: there is a form for mode relay.
	relays bool
	write  func(w io.Writer, s source) error
}

var snippets = []snippet{
	{PrometheusOperator, "prometheus", false, false, writeOperator},
	{PrometheusChart, "prometheus-server", false, false, writeChart},
	{KubePrometheusStack, "prometheus", false, false, writeStack},
	{OpenTelemetry, "otc-container", false, true, writeOpenTelemetry},
	{VMAgent, "vmagent", false, true, writeVMAgent},
	{Alloy, "alloy", false, true, writeAlloy},
	{Grafana, "grafana", true, false, writeGrafana},
}

// Outputs returns the names of all output formats of [Config].
func Outputs() []string {
	list := []string{Full, Block}
	for _, s := range snippets {
		list = append(list, s.name)
	}
	return list
}

// writers returns the output formats for programs that write.
func writers() []string {
	var list []string
	for _, s := range snippets {
		if !s.reads {
			list = append(list, s.name)
		}
	}
	return list
}

// IsSnippet reports whether an output is a snippet, which needs no configuration file.
func IsSnippet(output string) bool {
	return slices.ContainsFunc(snippets, func(s snippet) bool { return s.name == output })
}

// source is what a snippet is made from.
type source struct {
	snippet
	destination policy.Destination
	mode        policy.Mode
	// block is Prometheus's, without what the sidecar adds to it.
	block policy.Block
	// cluster is the policy's name of the cluster.
	cluster     string
	stsEndpoint string
	annotations map[string]string
}

// writeSnippet writes the configuration of one program for one destination.
func writeSnippet(o ConfigOptions, p *policy.Policy, subject policy.Subject, version policy.Version, stdout, stderr io.Writer) error {
	form := snippets[slices.IndexFunc(snippets, func(s snippet) bool { return s.name == o.Output })]
	granted, _ := p.Entitled(subject)
	d, err := form.choose(o, granted.Destinations)
	if err != nil {
		return err
	}
	mode, note, err := form.modeFor(o, p, subject, d)
	if err != nil {
		return err
	}
	if form.name == VMAgent && mode == policy.ModeIdentity && !d.AssumeRole.IsZero() {
		return fmt.Errorf("vmagent reads no AWS configuration, which assumeRole of destination %s needs: grant mode: relay, or write "+
			"--delivery relay", d.Name)
	}
	block := d.Block(p.Cluster.Name)
	block.Name = strings.TrimPrefix(block.Name, policy.BlockName("")) // ampbridge's own block keeps its name
	block.SigV4 = &policy.BlockSigV4{Region: d.Workspace.Region}
	s := source{
		snippet: form, destination: d, mode: mode, block: block, cluster: p.Cluster.Name, stsEndpoint: p.STSFor(d).Endpoint,
		annotations: map[string]string{policy.AnnotationContainer: form.container},
	}
	if len(granted.Destinations) > 1 {
		s.annotations[policy.AnnotationDestination] = d.Name
	}
	if slices.ContainsFunc([]policy.Mode{policy.ModePrometheus, policy.ModeIdentity, policy.ModeRelay}, func(m policy.Mode) bool {
		_, other := p.EntitledAs(subject, m)
		return other && m != mode
	}) {
		s.annotations[policy.AnnotationMode] = string(mode)
	}
	var notes []string
	if note != "" {
		notes = append(notes, d.Name+": "+note)
	}
	if form.name == PrometheusChart {
		var omitted []policy.Omission
		s.block, omitted = block.For(version)
		for _, field := range omitted {
			notes = append(notes, fmt.Sprintf("%s: it does without %s, which needs Prometheus %s: --prometheus-version shows it",
				d.Name, field.Field, field.Since))
		}
	}
	if d.RemoteWrite.CABundle != "" && mode != policy.ModeRelay && !form.reads {
		notes = append(notes, d.Name+": remoteWrite.caBundle is not in it: mount a file with these authorities, and name it in the "+
			"program's TLS settings")
	}
	if granted.HA != "" {
		notes = append(notes, d.Name+": the labels of ha are not in it: have the program set cluster and __replica__ itself")
	}
	if err := writeNotes(stderr, notes); err != nil {
		return err
	}
	return form.write(stdout, s)
}

// choose returns the destination: the one that is named, or the only one that the program
// can use.
func (f snippet) choose(o ConfigOptions, granted []policy.Destination) (policy.Destination, error) {
	usable := func(d policy.Destination) bool { return f.reads && d.Queries() || !f.reads && d.Writes() }
	needs := policy.AccessWrite
	if f.reads {
		needs = policy.AccessQuery
	}
	subject := fmt.Sprintf("service account %s of namespace %s", o.ServiceAccount, o.Namespace)
	var names, fit []string
	var chosen policy.Destination
	for _, d := range granted {
		names = append(names, d.Name)
		if usable(d) {
			fit = append(fit, d.Name)
			if o.Destination == "" || o.Destination == d.Name {
				chosen = d
			}
		}
	}
	switch {
	case o.Destination != "" && !slices.Contains(names, o.Destination):
		return chosen, fmt.Errorf("--destination %q: it is not granted to %s: write one of %s", o.Destination, subject, strings.Join(names, ", "))
	case o.Destination != "" && !slices.Contains(fit, o.Destination):
		return chosen, fmt.Errorf("-o %s needs access: [%s], and destination %s does not have it: add %s to destinations[].access in %s, "+
			"and run ampbridge bootstrap again", f.name, needs, o.Destination, needs, o.Policy)
	case len(fit) == 0:
		return chosen, fmt.Errorf("-o %s needs access: [%s], and no destination that is granted to %s has it (%s): add %s to "+
			"destinations[].access in %s, and run ampbridge bootstrap again", f.name, needs, subject, strings.Join(names, ", "), needs, o.Policy)
	case o.Destination == "" && len(fit) > 1:
		return chosen, usage.Errorf("-o %s is for one destination, and %s has %s: name one with --destination",
			f.name, subject, strings.Join(fit, ", "))
	}
	return chosen, nil
}

// modeFor returns the mode of the pod that the snippet is for, and what to say about it:
// the one that is granted for the destination, or that --delivery asks for.
func (f snippet) modeFor(o ConfigOptions, p *policy.Policy, s policy.Subject, d policy.Destination) (policy.Mode, string, error) {
	var granted []policy.Mode
	for _, m := range []policy.Mode{policy.ModeIdentity, policy.ModeRelay, policy.ModePrometheus} {
		e, _ := p.EntitledAs(s, m)
		if slices.ContainsFunc(e.Destinations, func(to policy.Destination) bool { return to.Name == d.Name }) {
			granted = append(granted, m)
		}
	}
	if o.Delivery == policy.DeliveryRelay && !f.relays {
		return "", "", usage.Errorf("-o %s has no form for --delivery relay", f.name)
	}
	mode := policy.ModeIdentity
	onlyRelay := f.relays && slices.Contains(granted, policy.ModeRelay) && !slices.Contains(granted, policy.ModeIdentity)
	if o.Delivery == policy.DeliveryRelay || o.Delivery == "" && onlyRelay {
		mode = policy.ModeRelay
	}
	if slices.Contains(granted, mode) {
		return mode, "", nil
	}
	if slices.Contains(granted, policy.ModePrometheus) && !f.reads {
		return "", "", fmt.Errorf("the grant of service account %s of namespace %s has mode prometheus: the sidecar adds the block by itself, "+
			"and leaves it out where the configuration has it already, so nothing of it belongs in Git; for a snippet, the grant needs mode: %s",
			s.ServiceAccount, s.Namespace, mode)
	}
	return mode, fmt.Sprintf("the snippet needs mode: %s in the grant of service account %s of namespace %s",
		mode, s.ServiceAccount, s.Namespace), nil
}

// encode writes a comment and a value as YAML.
func (s source) encode(w io.Writer, value any, comments ...string) error {
	if err := s.head(w, "#", comments...); err != nil {
		return err
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	return encoder.Close()
}

// head writes what the program's pod needs. Annotations that a snippet has itself are not
// repeated.
func (s source) head(w io.Writer, comment string, more ...string) error {
	lines := append([]string{fmt.Sprintf("Destination %s, mode %s.", s.destination.Name, s.mode)}, more...)
	if s.annotations != nil {
		lines = append(lines, "The pod's template needs, in a namespace with the label "+policy.LabelInjection+":")
		for _, name := range []string{policy.AnnotationContainer, policy.AnnotationDestination, policy.AnnotationMode} {
			if value := s.annotations[name]; value != "" {
				lines = append(lines, "  "+name+": "+value)
			}
		}
	}
	for _, line := range lines {
		if _, err := fmt.Fprintf(w, "%s %s\n", comment, line); err != nil {
			return err
		}
	}
	return nil
}

// operatorWrite is a remoteWrite of prometheus-operator
// (https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.RemoteWriteSpec).
type operatorWrite struct {
	URL                  string            `yaml:"url"`
	Name                 string            `yaml:"name"`
	RemoteTimeout        string            `yaml:"remoteTimeout,omitempty"`
	SendExemplars        bool              `yaml:"sendExemplars,omitempty"`
	SendNativeHistograms bool              `yaml:"sendNativeHistograms,omitempty"`
	ProxyURL             string            `yaml:"proxyUrl,omitempty"`
	ProxyFromEnvironment bool              `yaml:"proxyFromEnvironment,omitempty"`
	SigV4                map[string]string `yaml:"sigv4"`
	QueueConfig          operatorQueue     `yaml:"queueConfig"`
	MetadataConfig       map[string]bool   `yaml:"metadataConfig,omitempty"`
	WriteRelabelConfigs  []operatorRelabel `yaml:"writeRelabelConfigs,omitempty"`
}

type operatorQueue struct {
	Capacity          int    `yaml:"capacity,omitempty"`
	MaxShards         int    `yaml:"maxShards,omitempty"`
	MinShards         int    `yaml:"minShards,omitempty"`
	MaxSamplesPerSend int    `yaml:"maxSamplesPerSend,omitempty"`
	BatchSendDeadline string `yaml:"batchSendDeadline,omitempty"`
	MinBackoff        string `yaml:"minBackoff,omitempty"`
	MaxBackoff        string `yaml:"maxBackoff,omitempty"`
	RetryOnRateLimit  bool   `yaml:"retryOnRateLimit,omitempty"`
	SampleAgeLimit    string `yaml:"sampleAgeLimit,omitempty"`
}

type operatorRelabel struct {
	SourceLabels []string `yaml:"sourceLabels,omitempty,flow"`
	Separator    *string  `yaml:"separator,omitempty"`
	Regex        *string  `yaml:"regex,omitempty"`
	Modulus      int      `yaml:"modulus,omitempty"`
	TargetLabel  string   `yaml:"targetLabel,omitempty"`
	Replacement  *string  `yaml:"replacement,omitempty"`
	Action       string   `yaml:"action,omitempty"`
}

func (s source) operatorWrite() operatorWrite {
	b := s.block
	w := operatorWrite{
		URL: b.URL, Name: b.Name, RemoteTimeout: b.RemoteTimeout, SendExemplars: b.SendExemplars,
		SendNativeHistograms: b.SendNativeHistograms, ProxyURL: b.ProxyURL, ProxyFromEnvironment: b.ProxyFromEnvironment,
		SigV4: map[string]string{"region": b.SigV4.Region}, QueueConfig: operatorQueue(b.QueueConfig),
	}
	if b.Metadata != nil {
		w.MetadataConfig = map[string]bool{"send": b.Metadata.Send}
	}
	for _, r := range b.WriteRelabelConfigs {
		// The operator takes an empty regex for none: a label that is not there has none.
		if r.Regex != nil && *r.Regex == "" {
			empty := "^$"
			r.Regex = &empty
		}
		w.WriteRelabelConfigs = append(w.WriteRelabelConfigs, operatorRelabel(r))
	}
	return w
}

// taken returns the annotations, which the snippet then has itself.
func (s *source) taken() map[string]string {
	annotations := s.annotations
	s.annotations = nil
	return annotations
}

type podMetadata struct {
	Annotations map[string]string `yaml:"annotations"`
}

type operatorSpec struct {
	PodMetadata podMetadata     `yaml:"podMetadata"`
	RemoteWrite []operatorWrite `yaml:"remoteWrite"`
}

func (s *source) operatorSpec() operatorSpec {
	return operatorSpec{podMetadata{s.taken()}, []operatorWrite{s.operatorWrite()}}
}

// writeOperator writes a part of a Prometheus or PrometheusAgent.
func writeOperator(w io.Writer, s source) error {
	return s.encode(w, map[string]any{"spec": s.operatorSpec()})
}

// writeStack writes values of the chart kube-prometheus-stack.
func writeStack(w io.Writer, s source) error {
	return s.encode(w, map[string]any{"prometheus": map[string]any{"prometheusSpec": s.operatorSpec()}})
}

// writeChart writes values of the chart prometheus-community/prometheus.
func writeChart(w io.Writer, s source) error {
	return s.encode(w, map[string]any{"server": struct {
		PodAnnotations map[string]string `yaml:"podAnnotations"`
		RemoteWrite    []policy.Block    `yaml:"remoteWrite"`
	}{s.taken(), []policy.Block{s.block}}})
}

func writeOpenTelemetry(w io.Writer, s source) error {
	var extension map[string]any
	name, exporter := "sigv4auth", map[string]any{"endpoint": s.block.URL}
	if s.mode == policy.ModeRelay {
		name = "basicauth/ampbridge"
		extension = map[string]any{"client_auth": map[string]any{
			"username": "${env:" + sidecarconfig.WriteUserVariable + "}",
			"password": "${file:" + relayPassword + "}",
		}}
		exporter = map[string]any{
			"endpoint": "${env:" + sidecarconfig.WriteURLVariable + "}", "tls": map[string]any{"insecure": true},
			"retry_on_failure": map[string]any{"max_elapsed_time": 0},
		}
	} else {
		extension = map[string]any{"region": s.destination.Workspace.Region, "service": "aps"}
	}
	exporter["auth"] = map[string]any{"authenticator": name}
	exporter["external_labels"] = map[string]any{"cluster": s.cluster}
	return s.encode(w, map[string]any{
		"extensions": map[string]any{name: extension},
		"exporters":  map[string]any{"prometheusremotewrite": exporter},
		"service":    map[string]any{"extensions": []string{name}},
	})
}

func writeVMAgent(w io.Writer, s source) error {
	args := []string{
		"-remoteWrite.url=" + s.block.URL,
		"-remoteWrite.aws.useSigv4",
		"-remoteWrite.aws.region=" + s.destination.Workspace.Region,
		"-remoteWrite.aws.stsEndpoint=" + cmp.Or(s.stsEndpoint, regionalSTS(s.destination.Workspace)),
	}
	if s.mode == policy.ModeRelay {
		args = []string{
			"-remoteWrite.url=$(" + sidecarconfig.WriteURLVariable + ")",
			"-remoteWrite.basicAuth.username=$(" + sidecarconfig.WriteUserVariable + ")",
			"-remoteWrite.basicAuth.passwordFile=$(" + sidecarconfig.WritePasswordFileVariable + ")",
		}
	}
	// AMP refuses samples that come out of order, as several queues send them.
	args = append(args, "-remoteWrite.forcePromProto", "-remoteWrite.queues=1", "-remoteWrite.label=cluster="+s.cluster)
	return s.encode(w, map[string]any{"args": args},
		"The last flag sets the label cluster of every series, also where a series has one.")
}

// regionalSTS returns the address of STS in the workspace's region: the host of each
// service has the same end.
func regionalSTS(w policy.Workspace) string {
	_, end, _ := strings.Cut(w.Host(), ".")
	return "https://sts." + end
}

// writeAlloy writes a component, as `alloy fmt` formats it.
func writeAlloy(w io.Writer, s source) error {
	if err := s.head(w, "//"); err != nil {
		return err
	}
	endpoint := fmt.Sprintf("\t\turl = %q\n\n\t\tsigv4 {\n\t\t\tregion = %q\n\t\t}\n", s.block.URL, s.destination.Workspace.Region)
	if s.mode == policy.ModeRelay {
		endpoint = fmt.Sprintf("\t\turl = sys.env(%q)\n\n"+
			"\t\tbasic_auth {\n\t\t\tusername      = sys.env(%q)\n\t\t\tpassword_file = sys.env(%q)\n\t\t}\n",
			sidecarconfig.WriteURLVariable, sidecarconfig.WriteUserVariable, sidecarconfig.WritePasswordFileVariable)
	}
	_, err := fmt.Fprintf(w, "prometheus.remote_write %q {\n\texternal_labels = {cluster = %q}\n\n\tendpoint {\n%s\t}\n}\n",
		strings.ReplaceAll(s.block.Name, "-", "_"), s.cluster, endpoint)
	return err
}

// writeGrafana writes a file for Grafana's folder provisioning/datasources.
func writeGrafana(w io.Writer, s source) error {
	return s.encode(w, map[string]any{"apiVersion": 1, "datasources": []any{map[string]any{
		"name": s.destination.Name, "type": "grafana-amazonprometheus-datasource", "access": "proxy",
		"url": strings.TrimSuffix(s.block.URL, "api/v1/remote_write"),
		"jsonData": map[string]any{
			"httpMethod": "POST", "sigV4Auth": true, "sigV4AuthType": "default", "sigV4Region": s.destination.Workspace.Region,
		},
	}}}, "Grafana needs the plugin grafana-amazonprometheus-datasource, and GF_AUTH_SIGV4_AUTH_ENABLED=true.")
}
