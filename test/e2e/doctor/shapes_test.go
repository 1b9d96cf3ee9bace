//go:build shapes

package doctor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy/check"
)

// shape is a healthy installation: a policy, and a pod.
type shape struct {
	name string
	// policy are replacements in the fixture's.
	policy func(*fixture) []string
	// config is Prometheus's configuration; empty: Prometheus scrapes itself.
	config string
	// change is made to the pod.
	change func(*corev1.Pod)
	// prepare makes what the policy needs.
	prepare func(*fixture)
}

func replaced(pairs ...string) func(*fixture) []string {
	return func(*fixture) []string { return pairs }
}

var shapes = []shape{
	{name: "one destination, one grant"},
	{name: "two destinations", policy: func(s *fixture) []string {
		next := s.account.CreateWorkspace(region, "backup")
		return []string{
			"grants:\n", fmt.Sprintf("- {name: backup, workspace: %q, endpoint: %q}\ngrants:\n", next.ARN, s.cloud.URL),
			"destinations: [central]", "destinations: [central, backup]",
		}
	}},
	{name: "two grants", policy: replaced("grants:\n",
		"grants:\n- {namespaces: [\"team-*\"], serviceAccounts: [prometheus], destinations: [central]}\n")},
	{name: "a wildcard grant", policy: replaced("namespaces: ["+namespace+"]", `namespaces: ["moni*"]`,
		"serviceAccounts: ["+serviceAccount+"]", `serviceAccounts: ["*"]`)},
	{name: "a role for each service account",
		policy: replaced("  permissionsBoundary:", "  roleScope: serviceAccount\n  permissionsBoundary:")},
	{name: "a second role, with an external ID", policy: replaced("- name: central\n",
		"- name: central\n  assumeRole: "+secondRole+"\n  externalID: a-b-c\n"), prepare: (*fixture).makeSecondRole},
	{
		name:   "a destination that is queried too",
		policy: replaced("- name: central\n", "- name: central\n  access: [write, query]\n"),
		prepare: func(s *fixture) {
			s.must(
				s.account.PutManagedPolicy(
					"boundary",
					`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:*","sts:AssumeRole"],`+
						`"Resource":"*"}]}`,
				),
			)
		},
	},
	{name: "the relay", policy: replaced("- name: central\n", "- name: central\n  delivery: relay\n")},
	{
		name:   "an identity of the node's for service discovery",
		policy: replaced("environment: container", "environment: sidecar"),
		config: nodesRole,
	},
	{name: "Prometheus listens on loopback alone", change: func(pod *corev1.Pod) {
		for i, arg := range pod.Spec.Containers[1].Args {
			pod.Spec.Containers[1].Args[i] = strings.Replace(arg, "0.0.0.0", "127.0.0.1", 1)
		}
	}},
	{name: "the host's network", change: func(pod *corev1.Pod) { pod.Spec.HostNetwork = true }},
}

// TestShapes runs doctor on each shape. Every check passes, and the exit status is 0. It has the
// issuer of AKS, with its slash, behind a private CA, and the webhook behind its Service;
// test/e2e/kinds has other issuers, and all kinds of pods.
func TestShapes(t *testing.T) {
	s := newFixture(t, nil)
	s.syncRan()
	for _, c := range shapes {
		t.Run(c.name, func(t *testing.T) { s.in(t).holds(c) })
	}
}

// syncRan creates the CronJob of sync with the status of a successful run.
func (s *fixture) syncRan() {
	s.Helper()
	jobs := s.kube.Client().BatchV1().CronJobs(system)
	s.must(jobs.Create(s.Context(), &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "ampbridge-sync", Labels: syncLabels},
		Spec: batchv1.CronJobSpec{Schedule: "0 0 29 2 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "sync",
					Image: "registry.example/ampbridge:dev"}},
			}},
		}}},
	}, metav1.CreateOptions{}))
	now := time.Now().UTC().Format(time.RFC3339)
	s.must(jobs.Patch(
		s.Context(),
		"ampbridge-sync",
		types.MergePatchType,
		fmt.Appendf(
			nil,
			`{"status":{"lastScheduleTime":%q,"lastSuccessfulTime":%q}}`,
			now,
			now,
		),
		metav1.PatchOptions{},
		"status",
	))
}

func (s *fixture) makeSecondRole() {
	s.Helper()
	s.must(
		s.iam.CreateRole(
			s.Context(),
			&iam.CreateRoleInput{RoleName: aws.String("writer"), AssumeRolePolicyDocument: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + accountID + `:role/ampbridge/demo/` +
					roleName + `"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"a-b-c"}}}]}`,
			)},
		),
	)
	s.must(s.iam.PutRolePolicy(s.Context(), &iam.PutRolePolicyInput{
		RoleName: aws.String("writer"), PolicyName: aws.String("write"), PolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}]}`),
	}))
}

// holds creates the shape, and waits until every check of doctor passes.
func (s *fixture) holds(c shape) {
	s.Helper()
	if c.prepare != nil {
		c.prepare(s)
	}
	var replace []string
	if c.policy != nil {
		replace = c.policy(s)
	}
	s.setPolicy(replace...)
	s.webhookPolicy(s.policy(replace...))
	s.sync()
	name := "shape-" + strings.ReplaceAll(strings.ToLower(strings.Map(func(r rune) rune {
		if r == ',' || r == '\'' {
			return -1
		}
		return r
	}, c.name)), " ", "-")
	stop := s.runShape(name, c)
	defer stop()
	var a answer
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		s.address(name)
		if a = s.runDoctor(fault{args: []string{"--require", "all"}}); a.status == 0 &&
			!slices.ContainsFunc(a.Findings, imperfect) {
			return
		}
	}
	s.Fatalf("status %d\n%s", a.status, a.text())
}

func imperfect(f check.Finding) bool { return f.Status != check.Pass && !f.Excluded }

// runShape runs the pod after the webhook has read its policy file. It creates pods until one is
// injected as the policy requires.
func (s *fixture) runShape(name string, c shape) (stop func()) {
	s.Helper()
	s.eventually("the webhook has the policy", func() bool {
		s.createPod("probe", c.change)
		defer s.deletePod("probe")
		return slices.ContainsFunc(s.runDoctor(fault{}).Of(check.Pods), func(f check.Finding) bool {
			return f.About.Pod == namespace+"/probe" && f.Status == check.Pass
		})
	})
	config := c.config
	if config == "" {
		config = selfScrape
	}
	return s.runPod(name, freePort(s.T, s.host), config, c.change)
}
