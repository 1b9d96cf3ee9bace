package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// runningPod is a pod of Prometheus, or of another program that an annotation of the pod names.
type runningPod struct {
	*corev1.Pod
	// container is the container of that program; nil: doctor does not know which one it is.
	container *corev1.Container
	// mark is the webhook's record of what it added; zero: the pod is not injected.
	mark inject.Injected
	// config is the sidecar config; nil: the pod is not injected.
	config *sidecarconfig.Config
	about  check.About
}

// checkPods checks the Prometheus pods of the subjects.
func (x *runner) checkPods(ctx context.Context) {
	ids := []check.ID{check.Pods, check.Identity, check.Sidecar, check.Flow}
	if x.cluster == nil {
		x.checks.Skip(check.About{}, noCluster, ids...)
		return
	}
	var none []*subject
	checked, optedOut := 0, 0
	for _, s := range x.subjects {
		pods, err := x.prometheusPods(ctx, s)
		if err != nil {
			x.checks.Skip(s.about, "the pods cannot be listed: "+err.Error(), ids...)
			continue
		}
		if len(pods) == 0 {
			none = append(none, s)
		}
		for _, pod := range pods {
			x.checkPod(ctx, s, pod)
			if pod.optedOut() {
				optedOut++
			} else {
				checked++
			}
		}
	}
	if checked == 0 && optedOut > 0 {
		// Without these findings, a report that proves no flow at all would be a success.
		x.checks.Skip(check.About{}, "every Prometheus pod opted out", ids...)
	}
	// A wildcard also covers service accounts of other programs. They need no Prometheus pod.
	for _, s := range none {
		const message = "no Prometheus pod of this service account is running"
		if other := x.otherPrometheus(ctx, s); s.named && other != nil {
			x.checks.Run(ids[0], s.about, func() check.Finding { return x.otherAccount(s, other) })
			x.checks.Skip(s.about, message, ids[1:]...)
		} else if s.named || len(none) == len(x.subjects) {
			x.checks.Skip(s.about, message+x.unlikePrometheus(ctx, s)+x.refusedPods(ctx, s.Namespace), ids[0])
			x.checks.Skip(s.about, message, ids[1:]...)
		} else {
			x.checks.Exclude(s.about, message, ids...)
		}
	}
}

// otherAccount is the finding about a Prometheus pod that runs as an account without a grant.
func (x *runner) otherAccount(s *subject, other *corev1.Pod) check.Finding {
	return failed(check.NewFix(fmt.Sprintf("in the policy (%s), add %s to the serviceAccounts of the grant, or let the pod run as %s",
		x.source, other.Spec.ServiceAccountName, s.ServiceAccount)),
		"no Prometheus pod runs as %s, and %s/%s runs as %s, which no grant covers",
		s.ServiceAccount, other.Namespace, other.Name, other.Spec.ServiceAccountName)
}

// otherPrometheus returns a Prometheus pod in the subject's namespace whose service account
// no grant covers, and that did not opt out; nil: there is none, or the pods cannot be listed.
func (x *runner) otherPrometheus(ctx context.Context, s *subject) *corev1.Pod {
	list, err := x.cluster.client.CoreV1().Pods(s.Namespace).List(ctx, metav1.ListOptions{Limit: pageSize, FieldSelector: running(nil)})
	if err != nil {
		return nil
	}
	for i := range list.Items {
		pod := &list.Items[i]
		_, covered := x.policy.Entitled(policy.Subject{Namespace: pod.Namespace, ServiceAccount: pod.Spec.ServiceAccountName})
		if _, prometheus := prometheusContainer(pod); prometheus && !covered && pod.Annotations[policy.AnnotationInject] != "false" {
			return pod
		}
	}
	return nil
}

// unlikePrometheus returns which pod runs as the subject and does not look like Prometheus;
// empty: none does, or the pods cannot be listed.
func (x *runner) unlikePrometheus(ctx context.Context, s *subject) string {
	list, err := x.cluster.client.CoreV1().Pods(s.Namespace).List(ctx, metav1.ListOptions{Limit: 1,
		FieldSelector: running(&s.ServiceAccount)})
	if err != nil || len(list.Items) == 0 {
		return ""
	}
	return fmt.Sprintf("; pod %s runs as it and does not look like Prometheus: name its container with the annotation %s",
		list.Items[0].Name, policy.AnnotationContainer)
}

// running returns a field selector for the pods of a service account that have not ended;
// nil: of any service account.
func running(account *string) string {
	selectors := []fields.Selector{
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
	}
	if account != nil {
		selectors = append(selectors, fields.OneTermEqualSelector("spec.serviceAccountName", *account))
	}
	return fields.AndSelectors(selectors...).String()
}

// noteVersions adds the pod's images to the head of the report.
func (x *runner) noteVersions(pod *runningPod) {
	v := &x.checks.Head.Versions
	if image := kube.SidecarImage(pod.Pod); image != "" {
		v.Sidecars = counted(v.Sidecars, image)
	}
	if pod.container != nil && pod.mark.Mode == "" {
		v.Prometheus = counted(v.Prometheus, pod.container.Image)
	}
}

// counted returns the counts with one more of the image.
func counted(counts map[string]int, image string) map[string]int {
	if counts == nil {
		counts = map[string]int{}
	}
	counts[image]++
	return counts
}

func (x *runner) checkPod(ctx context.Context, s *subject, pod *runningPod) {
	x.noteVersions(pod)
	x.checks.Run(check.Pods, pod.about, func() check.Finding { return x.injected(ctx, s, pod) })
	switch pod.mark.Mode {
	case policy.ModeIdentity:
		x.checks.Exclude(pod.about, "mode identity has no sidecar: the program itself gets its sessions from STS, and its own metrics and log "+
			"show its writes", check.Identity, check.Sidecar, check.Flow)
		return
	case policy.ModeRelay:
		x.checks.Exclude(pod.about, "mode relay: no AWS variable is added", check.Identity)
		x.checkSidecar(ctx, pod)
		x.checks.Run(check.Flow, pod.about, func() check.Finding { return x.relayFlow(ctx, pod, "") })
		return
	}
	if pod.container == nil {
		x.checks.Skip(pod.about, "the pod does not say which container is Prometheus", check.Identity, check.Sidecar, check.Flow)
		return
	}
	x.checks.Run(check.Identity, pod.about, func() check.Finding {
		configs := x.givenConfigs(ctx, pod)
		if pod.config != nil {
			configs = append(configs, x.loadedConfig(ctx, pod))
		}
		return x.identity(ctx, pod, configs)
	})
	switch {
	case pod.optedOut():
		x.checks.Exclude(pod.about, "the pod opted out", check.Sidecar, check.Flow)
		return
	case pod.config == nil:
		x.checks.Skip(pod.about, "the pod has no sidecar", check.Sidecar, check.Flow)
		return
	}
	x.checkSidecar(ctx, pod)
	flows := false
	x.checks.Run(check.Flow, pod.about, func() (f check.Finding) {
		if reason := ended(pod.Pod, pod.container.Name); reason != "" {
			return failed(check.NewFix("see why Prometheus ends", check.Command{"kubectl", "logs", "--namespace", pod.Namespace, pod.Name,
				"--container", pod.container.Name, "--previous"}), "Prometheus itself does not run: %s", reason)
		}
		defer func() { flows = f.Status == check.Pass }()
		served := blocks(*pod.config)
		if own := x.leftOut(ctx, pod); len(own) > 0 {
			served = slices.DeleteFunc(served, func(b policy.Block) bool { return slices.Contains(own, b.Name) })
		}
		if len(served) == 0 {
			return check.Excluded("", check.About{}, "Prometheus's own remote_write writes to the workspace, and the block is left out")
		}
		return x.flow(ctx, served, func() (string, error) { return x.queues(ctx, pod) },
			func(problem string) check.Finding { return x.relayFlow(ctx, pod, problem) })
	})
	if flows && kube.SidecarPort(pod.Pod) == "" {
		x.checks.Prove(check.Sidecar, pod.about, "the sidecar serves no status in this pod, for example because it is on the host's "+
			"network; AMP accepts the pod's samples, so its session is valid and the block is served")
	}
}

// leftOut returns the names of the blocks that the sidecar leaves out because Prometheus's own
// configuration already writes to their workspaces.
func (x *runner) leftOut(ctx context.Context, pod *runningPod) []string {
	status, err := kube.SidecarStatus(ctx, x.cluster.client.CoreV1(), pod.Pod)
	if err != nil {
		return nil
	}
	var names []string
	for _, d := range status.Destinations {
		if d.Skipped != "" {
			names = append(names, policy.BlockName(d.Name))
		}
	}
	return names
}

// queues reads the metrics of Prometheus's queues. If Prometheus does not answer, for example
// because it listens only on a loopback address, queues reads them through the sidecar.
func (x *runner) queues(ctx context.Context, pod *runningPod) (string, error) {
	text, err := x.prometheus(ctx, pod, "/metrics")
	if err == nil {
		return text, nil
	}
	text, inPod := kube.SidecarQueues(ctx, x.cluster.client.CoreV1(), pod.Pod)
	if inPod == nil {
		return text, nil
	}
	return "", fmt.Errorf("%w; through the sidecar: %w", err, inPod)
}

// relayFlow judges the writes by the sidecar's status. problem is why Prometheus's own
// metrics cannot be used; empty: there is no Prometheus.
func (x *runner) relayFlow(ctx context.Context, pod *runningPod, problem string) check.Finding {
	status, err := kube.SidecarStatus(ctx, x.cluster.client.CoreV1(), pod.Pod)
	if err != nil {
		return skipped("%s", cmp.Or(problem, "the sidecar's status cannot be read: "+err.Error()))
	}
	return check.RelayFlow(status, problem)
}

// checkSidecar checks whether the pod's sidecar runs and what its status shows.
func (x *runner) checkSidecar(ctx context.Context, pod *runningPod) {
	if pod.config == nil {
		x.checks.Skip(pod.about, "the config of the sidecar cannot be read", check.Sidecar)
		return
	}
	x.checks.Run(check.Sidecar, pod.about, func() check.Finding {
		if f, stuck := x.stuck(ctx, pod.Pod); stuck {
			return f
		}
		status, err := kube.SidecarStatus(ctx, x.cluster.client.CoreV1(), pod.Pod)
		if err != nil {
			return check.UnreadSidecar(err, *pod.config, kube.SidecarImage(pod.Pod), x.policy.Sidecar.Image, rollout(pod.Pod))
		}
		f := check.SidecarState(check.ObservedSidecar{
			Status: status, Config: *pod.config, CheckConfig: checkConfig(pod), Restart: rollout(pod.Pod),
		}, x.Now())
		if crash, recently := x.crashed(pod.Pod); recently && f.Status == check.Pass {
			return crash
		}
		return f
	})
}

// blocks returns the remote_write blocks that the sidecar serves.
func blocks(c sidecarconfig.Config) []policy.Block {
	var list []policy.Block
	for _, d := range c.Destinations {
		list = append(list, d.Block)
	}
	return list
}

// checkConfig returns the command that checks the configuration which the pod's Prometheus
// loads; nil: its path is not known.
func checkConfig(pod *runningPod) check.Command {
	converted, err := convert(pod.Pod)
	if err != nil {
		return nil
	}
	file := inject.ConfigFile(converted)
	if file == "" || pod.mark.Mode == policy.ModeRelay {
		return nil
	}
	return check.Command{"kubectl", "exec", "--namespace", pod.Namespace, pod.Name, "--container", pod.container.Name, "--",
		"promtool", "check", "config", file}
}

// flowEvery is the pause between two reads of Prometheus's metrics.
const flowEvery = 2 * time.Second

// flow judges the writes by Prometheus's metrics. It reads them again until the finding is
// final. If they cannot be read, instead returns the finding.
func (x *runner) flow(
	ctx context.Context,
	blocks []policy.Block,
	metrics func() (string, error),
	instead func(problem string) check.Finding,
) check.Finding {
	var first check.Metrics
	for began := time.Now(); ; {
		text, err := metrics()
		if err != nil {
			return instead(fmt.Sprintf("Prometheus's metrics cannot be read: %v", err))
		}
		last, err := parseMetrics(text)
		if err != nil {
			return skipped("Prometheus's metrics cannot be parsed: %v", err)
		}
		if first == nil {
			first = last
		}
		finding, final := check.FlowState(first, last, time.Since(began), blocks, x.Now())
		if final {
			return finding
		}
		if err := pause(ctx, flowEvery); err != nil {
			return skipped("%v", err)
		}
	}
}

// prometheusPods returns the subject's pods that run Prometheus.
func (x *runner) prometheusPods(ctx context.Context, s *subject) ([]*runningPod, error) {
	list, err := x.cluster.client.CoreV1().Pods(s.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: running(&s.ServiceAccount),
	})
	if err != nil {
		return nil, err
	}
	var found []*runningPod
	for i := range list.Items {
		pod := &list.Items[i]
		name, ok := prometheusContainer(pod)
		if !ok || pod.DeletionTimestamp != nil { // a terminating pod is no longer of interest
			continue
		}
		mark, marked := markOf(pod)
		if marked && len(mark.Containers) > 0 {
			name = mark.Containers[0]
		}
		r := &runningPod{Pod: pod, mark: mark, about: check.About{Subject: s.String(), Pod: pod.Namespace + "/" + pod.Name}}
		for c := range pod.Spec.Containers {
			if pod.Spec.Containers[c].Name == name {
				r.container = &pod.Spec.Containers[c]
			}
		}
		r.config = sidecarConfigOf(pod)
		found = append(found, r)
	}
	return found, nil
}

// markOf returns the webhook's record of what it added to the pod; false: there is none, or it
// cannot be read.
func markOf(pod *corev1.Pod) (m inject.Injected, ok bool) {
	text, marked := pod.Annotations[inject.AnnotationInjected]
	return m, marked && json.Unmarshal([]byte(text), &m) == nil
}

// prometheusContainer detects Prometheus as the webhook does.
func prometheusContainer(pod *corev1.Pod) (string, bool) {
	converted, err := convert(pod)
	if err != nil {
		return "", false
	}
	return inject.Prometheus(converted)
}

// convert returns the pod as the webhook sees it.
func convert(pod *corev1.Pod) (*inject.Pod, error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	var converted inject.Pod
	return &converted, json.Unmarshal(text, &converted)
}

func sidecarConfigOf(pod *corev1.Pod) *sidecarconfig.Config {
	for _, c := range pod.Spec.InitContainers {
		if c.Name != sidecarconfig.ContainerName {
			continue
		}
		for _, v := range c.Env {
			if v.Name == sidecarconfig.Variable {
				if a, err := sidecarconfig.Decode(strings.ReplaceAll(v.Value, "$$", "$")); err == nil {
					return &a
				}
			}
		}
	}
	return nil
}

// optedOut reports whether the pod opted out and was not injected.
func (p *runningPod) optedOut() bool {
	return p.config == nil && p.Annotations[policy.AnnotationInject] == "false"
}

// injected judges whether the pod was injected by the current policy.
func (x *runner) injected(ctx context.Context, s *subject, pod *runningPod) check.Finding {
	restart := check.NewFix("restart the workload: pods are injected when they are created", rollout(pod.Pod))
	if pod.optedOut() {
		return check.Excluded("", check.About{}, "it opted out (annotation %s)", policy.AnnotationInject)
	}
	if change := altered(pod.Pod, pod.mark, x.policy.Token); pod.mark.Policy != "" && change != "" {
		return failed(fixAltered, "it was injected, and then another webhook changed it: %s", change)
	}
	if pod.config == nil && pod.mark.Mode != policy.ModeIdentity {
		if e, refused := x.openFor(ctx, pod.Pod); refused {
			return failed(fitSidecar(), "it runs without the sidecar, because %s refused the pods of its workload with the sidecar: %s",
				e.By, e.Message)
		}
		if f := x.candidate(s, pod.Pod); f.Status == check.Fail {
			return f // a restart would not help
		}
		return failed(restart, "it is running, and was not injected when it was created")
	}
	entitlement, ok := x.policy.EntitledAs(s.Subject, cmp.Or(pod.mark.Mode, policy.ModePrometheus))
	if !ok && pod.mark.Mode != "" {
		return warned(restart, "it was injected with mode %s, and no grant has that mode any more", pod.mark.Mode)
	} else if !ok {
		return passed("injected")
	}
	converted, err := convert(pod.Pod)
	if err != nil {
		return skipped("%v", err)
	}
	// The webhook also considers the pod's own annotations and its workload.
	if d := x.policy.Decide(policy.Request{
		Namespace: s.Namespace, Injection: policy.InjectionEnabled, ServiceAccount: s.ServiceAccount, Prometheus: true,
		PodAnnotations: pod.Annotations, Workload: inject.Workload(converted),
	}); d.Inject && d.Mode == entitlement.Mode {
		entitlement = d.Entitlement
	}
	entitlement.Destinations = slices.DeleteFunc(slices.Clone(entitlement.Destinations), func(d policy.Destination) bool {
		return !slices.ContainsFunc(s.destinations, func(kept policy.Destination) bool { return kept.Name == d.Name }) ||
			pod.mark.Mode != "" && !slices.Contains(pod.mark.Destinations, d.Name)
	})
	carried, current, err := inject.Mark(converted, entitlement, x.policy)
	if err != nil {
		return failed(restart, "its injection cannot be read: %v", err)
	}
	for _, d := range entitlement.Destinations {
		if !slices.Contains(carried.Destinations, d.Name) {
			return failed(restart, "it was injected before the policy granted it the destination %s", d.Name)
		}
	}
	if carried.Policy != current.Policy {
		return warned(restart, "it was injected by an older policy")
	}
	return passed("injected, %s", carried)
}

// rollout returns the command that replaces the pod.
func rollout(pod *corev1.Pod) check.Command {
	for _, o := range pod.OwnerReferences {
		if o.Controller == nil || !*o.Controller {
			continue
		}
		kind, name := strings.ToLower(o.Kind), o.Name
		if kind == "replicaset" {
			// The name of its ReplicaSet is the Deployment's name, a dash and a hash.
			if i := strings.LastIndexByte(name, '-'); i > 0 {
				kind, name = "deployment", name[:i]
			}
		}
		return check.Command{"kubectl", "rollout", "restart", "--namespace", pod.Namespace, kind + "/" + name}
	}
	return check.Command{"kubectl", "delete", "pod", "--namespace", pod.Namespace, pod.Name}
}

// identity reads the container's environment from the pod's spec and its ConfigMaps.
func (x *runner) identity(ctx context.Context, pod *runningPod, configs []string) check.Finding {
	state := check.ContainerState{Env: map[string]string{}, Configs: configs}
	for _, from := range pod.container.EnvFrom {
		switch {
		case from.SecretRef != nil:
			state.Hidden = append(state.Hidden, "Secret "+from.SecretRef.Name)
		case from.ConfigMapRef != nil:
			object, err := x.cluster.client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, from.ConfigMapRef.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue // optional, or the pod would not run
			}
			if err != nil {
				state.Hidden = append(state.Hidden, "ConfigMap "+from.ConfigMapRef.Name)
				continue
			}
			for name, value := range object.Data {
				state.Env[from.Prefix+name] = value
			}
		}
	}
	for _, v := range pod.container.Env {
		state.Env[v.Name] = v.Value
		if v.ValueFrom != nil {
			state.Env[v.Name] = "(from elsewhere)"
		}
	}
	state.Given = pod.config != nil && state.Env["AWS_WEB_IDENTITY_TOKEN_FILE"] == pod.config.Token
	finding := check.Environment(state)
	if finding.Fix != nil {
		finding.Fix.Summary += " (container " + pod.container.Name + " of pod " + pod.Namespace + "/" + pod.Name + ")"
	}
	return finding
}

// givenConfigs returns the configurations in the pod's ConfigMaps. Prometheus may not have
// loaded them yet.
func (x *runner) givenConfigs(ctx context.Context, pod *runningPod) []string {
	var found []string
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		object, err := x.cluster.client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, v.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			continue // it does not exist yet, or may not be read
		}
		for _, name := range slices.Sorted(maps.Keys(object.Data)) {
			if ext := path.Ext(name); ext == ".yml" || ext == ".yaml" {
				found = append(found, object.Data[name])
			}
		}
	}
	return found
}

// loadedConfig returns the configuration that Prometheus has loaded; empty: it cannot be
// read. Prometheus itself removes the secrets from it.
func (x *runner) loadedConfig(ctx context.Context, pod *runningPod) string {
	text, err := x.prometheus(ctx, pod, "/api/v1/status/config")
	if err != nil {
		return ""
	}
	var answer struct {
		Data struct {
			YAML string `json:"yaml"`
		} `json:"data"`
	}
	if json.Unmarshal([]byte(text), &answer) != nil {
		return ""
	}
	return answer.Data.YAML
}

// prometheus reads a path of the pod's Prometheus.
func (x *runner) prometheus(ctx context.Context, pod *runningPod, path string) (string, error) {
	at := pod.config.Prometheus
	_, port, err := net.SplitHostPort(at.Address)
	if err != nil {
		return "", fmt.Errorf("the address of Prometheus is not known: %w", err)
	}
	text, err := x.proxied(ctx, pod, "http", port, at.Prefix+path)
	if err == nil || !at.TLS {
		return text, err
	}
	// Prometheus's web configuration may require TLS. prometheus-operator always adds such a file,
	// so TLS is possible wherever it runs.
	text, secure := x.proxied(ctx, pod, "https", port, at.Prefix+path)
	if secure != nil {
		return "", fmt.Errorf("by http: %w; by https: %w", err, secure)
	}
	return text, nil
}

// proxied reads a path of a port of the pod through the API server.
func (x *runner) proxied(ctx context.Context, pod *runningPod, scheme, port, path string) (string, error) {
	if _, err := strconv.Atoi(port); err != nil {
		return "", err
	}
	if pod.Status.Phase != corev1.PodRunning {
		return "", fmt.Errorf("the pod is %s", pod.Status.Phase)
	}
	text, err := x.cluster.client.CoreV1().Pods(pod.Namespace).ProxyGet(scheme, pod.Name, port, path, nil).DoRaw(ctx)
	return string(text), err
}
