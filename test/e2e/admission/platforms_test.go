package admission_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/otherwebhooks"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
)

// every returns a rule for all containers of a pod; rule names a container c. emptyDirs returns a rule for
// all volumes of that kind; rule names a volume v.
func every(rule string) string {
	return `(!has(object.spec.initContainers) || object.spec.initContainers.all(c, ` + rule + `)) && ` +
		`object.spec.containers.all(c, ` + rule + `)`
}

func emptyDirs(rule string) string {
	return `!has(object.spec.volumes) || object.spec.volumes.all(v, !has(v.emptyDir) || (` + rule + `))`
}

const (
	podContext = `(has(object.spec.securityContext) && has(object.spec.securityContext.`
	ownContext = `(has(c.securityContext) && has(c.securityContext.`
)

var (
	inRange = every(ownContext + `runAsUser) ? ` +
		`c.securityContext.runAsUser >= 1000650000 && c.securityContext.runAsUser < 1000660000 : ` +
		podContext + `runAsUser) && object.spec.securityContext.runAsUser >= 1000650000 && object.spec.securityContext.runAsUser < 1000660000))`)
	unprivileged = every(`!` + ownContext + `privileged) && c.securityContext.privileged)`)
	noSeccomp    = `!` + podContext + `seccompProfile)) && ` + every(`!`+ownContext+`seccompProfile))`)
	seccomp      = podContext + `seccompProfile)) || ` + every(ownContext+`seccompProfile))`)
	nonRoot      = every(ownContext + `runAsNonRoot) ? c.securityContext.runAsNonRoot : ` + podContext + `runAsNonRoot) && ` +
		`object.spec.securityContext.runAsNonRoot))`)
	noEscalation = every(ownContext + `allowPrivilegeEscalation) && !c.securityContext.allowPrivilegeEscalation)`)
	readOnlyRoot = every(`c.name != 'ampbridge-config' || ` +
		ownContext + `readOnlyRootFilesystem) && c.securityContext.readOnlyRootFilesystem)`)
	safeVolumes = `!has(object.spec.volumes) || object.spec.volumes.all(v, has(v.configMap) || has(v.emptyDir) || has(v.projected) || ` +
		`has(v.secret) || has(v.downwardAPI) || has(v.persistentVolumeClaim))`
	ports = every(`!has(c.ports) || c.ports.all(p, !has(p.hostPort))`) + ` && (!has(object.spec.hostNetwork) || !object.spec.hostNetwork)`
	fixed = every(`has(c.resources.limits) && has(c.resources.requests) && c.resources.limits.all(k, !(k in c.resources.requests) || ` +
		`quantity(string(c.resources.limits[k])).compareTo(quantity(string(c.resources.requests[k]))) == 0)`)
	cpuLimits  = every(`has(c.resources.limits) && 'cpu' in c.resources.limits && 'memory' in c.resources.limits`)
	registries = every(`c.image.startsWith('registry.example.com/')`)
	sizeLimits = emptyDirs(`has(v.emptyDir.sizeLimit)`)
)

// drops returns the rule that every container drops the capability by name.
func drops(name string) string {
	return every(ownContext + `capabilities) && has(c.securityContext.capabilities.drop) && '` + name + `' in ` +
		`c.securityContext.capabilities.drop)`)
}

// testPlatforms checks that the API server admits a pod under the rules of each platform, after the
// platform's changes, both without and with injection. The platform accepts each pod without injection,
// because otherwise a refusal would prove nothing.
func (f *fixture) testPlatforms(t *testing.T) {
	const user = 1000650000
	restrictedV2 := otherwebhooks.SCC(user, true, "ALL")
	restrictedV1 := otherwebhooks.SCC(user, false, "KILL", "MKNOD", "SETUID", "SETGID")
	anyUID, nonRootV1 := otherwebhooks.SCC(0, false, "MKNOD"), otherwebhooks.SCC(0, false, "KILL", "MKNOD", "SETUID", "SETGID")
	const demanded = "sidecar: {resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {cpu: 200m, memory: 64Mi}}, " +
		"volumeSizeLimit: 16Mi}\n"
	table := []struct {
		name          string
		before, after func(map[string]any)
		rules         []string
		sidecar       string // of the policy
		pod           func(*testing.T) *corev1.Pod
	}{
		{"OpenShift, SCC restricted-v2", restrictedV2, restrictedV2,
			[]string{inRange, unprivileged, noEscalation, drops("ALL"), safeVolumes}, "", openPod},
		{"OpenShift, SCC restricted (v1)", restrictedV1, restrictedV1,
			[]string{inRange, unprivileged, noSeccomp, drops("KILL"), drops("SETUID"), safeVolumes}, "", openPod},
		{"OpenShift, SCC anyuid (v1)", anyUID, anyUID, []string{unprivileged, noSeccomp, drops("MKNOD"), safeVolumes}, "", handPod},
		{"OpenShift, SCC nonroot (v1)", nonRootV1, nonRootV1,
			[]string{unprivileged, noSeccomp, nonRoot, drops("KILL"), safeVolumes}, "", chartNonRootPod},
		{"istio before, native", otherwebhooks.Istio(true), nil, nil, "", operatorPod},
		{"istio before, classic", otherwebhooks.Istio(false), nil, nil, "", operatorPod},
		{"istio after, native", nil, otherwebhooks.Istio(true), nil, "", operatorPod},
		{"istio after, classic", nil, otherwebhooks.Istio(false), nil, "", operatorPod},
		{"linkerd before, native", otherwebhooks.Linkerd(true), nil, nil, "", chartPod},
		{"linkerd before, classic", otherwebhooks.Linkerd(false), nil, nil, "", chartPod},
		{"linkerd after, native", nil, otherwebhooks.Linkerd(true), nil, "", chartPod},
		{"linkerd after, classic", nil, otherwebhooks.Linkerd(false), nil, "", chartPod},
		{"istio before and linkerd after, both native", otherwebhooks.Istio(true), otherwebhooks.Linkerd(true), nil, "", handPod},
		{"EKS Pod Identity after", nil, otherwebhooks.PodIdentity, nil, "", chartPod},
		{"EKS Pod Identity before", otherwebhooks.PodIdentity, nil, nil, "", chartPod},
		{"policy engine that mutates, before", otherwebhooks.Mutations, nil, nil, "", chartPod},
		{"policy engine that mutates, after", nil, otherwebhooks.Mutations, nil, "", chartPod},
		{"policy engine that mutates and validates", otherwebhooks.Mutations, otherwebhooks.Mutations,
			[]string{cpuLimits, registries, sizeLimits, nonRoot, noEscalation, readOnlyRoot, safeVolumes}, demanded, chartPod},
		{"policies that require seccomp", otherwebhooks.SCC(0, true), nil,
			[]string{seccomp, noEscalation}, "", chartPod},
		{"EKS Fargate", otherwebhooks.Fargate, nil, []string{unprivileged, ports, safeVolumes}, "", chartPod},
		{"GKE Autopilot, without bursting", otherwebhooks.Autopilot, otherwebhooks.Autopilot,
			[]string{unprivileged, ports, safeVolumes, seccomp, fixed}, "", chartPod},
		{"GKE Autopilot, with the sidecar's requests set", otherwebhooks.Autopilot, otherwebhooks.Autopilot,
			[]string{unprivileged, ports, safeVolumes, seccomp, fixed}, demanded, chartPod},
	}
	all := changers{}
	for i, p := range table {
		all[fmt.Sprint("before-", i)], all[fmt.Sprint("after-", i)] = p.before, p.after
	}
	f.others(t, all)
	for i, p := range table {
		t.Run(p.name, func(t *testing.T) {
			namespace, outside := fmt.Sprintf("test-platform-%d", i), fmt.Sprintf("test-platform-%d-outside", i)
			webhooktest.Namespace(t, f.Cluster, namespace)
			f.namespace(t, outside, "", nil)
			for _, account := range []string{"prometheus-k8s", "prometheus-server"} {
				f.account(t, namespace, account, nil)
				f.account(t, outside, account, nil)
			}
			if p.sidecar != "" {
				f.writePolicy(t, p.sidecar)
				t.Cleanup(func() { f.writePolicy(t, "") })
				testkit.Eventually(t, "the policy is in force", func() bool {
					got, err := f.tryPod(t, "test-begin", chartPod(t), true)
					return err == nil && got.Spec.InitContainers[0].Resources.Limits.Memory().String() == "64Mi"
				})
			}
			f.demand(t, fmt.Sprintf("platform-%d", i), namespace, outside, p.rules)
			pod := p.pod(t)
			if p.before != nil {
				withLabel(pod, beforeLabel, fmt.Sprint("before-", i))
			}
			if p.after != nil {
				withLabel(pod, afterLabel, fmt.Sprint("after-", i))
			}
			became := f.playedBeside(t, namespace, outside, pod)
			if became != "injected" {
				t.Errorf("it is %s: %s", became, f.lastLine())
			}
		})
	}
}

// demand makes the API server deny pods of the namespaces that break a rule. It returns when the rules are in
// force.
func (f *fixture) demand(t *testing.T, name, namespace, outside string, rules []string) {
	t.Helper()
	if len(rules) == 0 {
		return
	}
	ctx, api := t.Context(), f.Client().AdmissionregistrationV1()
	// A pod that breaks this rule shows whether the rules are in force.
	const marker = "test.example.com/break-the-rules"
	validations := []registrationv1.Validation{{
		Expression: `!has(object.metadata.labels) || !('` + marker + `' in object.metadata.labels)`, Message: "the rules are in force",
	}}
	for i, rule := range rules {
		validations = append(validations, registrationv1.Validation{Expression: rule, Message: fmt.Sprintf("rule %d: %s", i, rule)})
	}
	webhooktest.DenyPods(t, f.Cluster, name, &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: []string{namespace, outside}},
	}}, registrationv1.ValidatingAdmissionPolicySpec{Validations: validations})
	t.Cleanup(func() {
		ctx := context.WithoutCancel(ctx)
		testkit.Must(t, api.ValidatingAdmissionPolicyBindings().Delete(ctx, name, metav1.DeleteOptions{}))
		testkit.Must(t, api.ValidatingAdmissionPolicies().Delete(ctx, name, metav1.DeleteOptions{}))
	})
	testkit.Eventually(t, "the rules are in force", func() bool {
		_, err := f.tryPod(t, outside, withLabel(webPod(), marker, "yes"), true)
		return err != nil && strings.Contains(err.Error(), "the rules are in force")
	})
}

// openPod returns a pod without a user, as OpenShift requires.
func openPod(t *testing.T) *corev1.Pod {
	pod := chartPod(t)
	pod.Spec.SecurityContext = nil
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].SecurityContext = nil
	}
	return pod
}

// chartNonRootPod returns the chart's pod, with a user that is not root.
func chartNonRootPod(t *testing.T) *corev1.Pod {
	pod := chartPod(t)
	pod.Spec.SecurityContext.RunAsNonRoot = new(true)
	return pod
}
