package doctor

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Doctor asks for each verb, and names the verbs that are denied. If the caller is an
// administrator, one answer is enough.
func TestDeniedRights(t *testing.T) {
	for _, c := range []struct {
		name  string
		allow func(authorizationv1.ResourceAttributes) bool
		want  string
		calls int // 0: not counted
	}{
		{"an administrator", func(authorizationv1.ResourceAttributes) bool { return true }, "", 1},
		{"each right alone", func(a authorizationv1.ResourceAttributes) bool { return a.Verb != "*" }, "", 0},
		{"no upgrade", func(a authorizationv1.ResourceAttributes) bool {
			return a.Verb != "*" && (a.Verb != "patch" || a.Resource != "clusterroles")
		},
			"patch clusterroles", 0},
		{"nothing of the cluster", func(a authorizationv1.ResourceAttributes) bool { return a.Namespace == "ampbridge-system" },
			"create mutatingwebhookconfigurations, validatingwebhookconfigurations, validatingadmissionpolicies, " +
				"validatingadmissionpolicybindings, clusterroles, clusterrolebindings; get ", 0},
		{"no releases of Helm", func(a authorizationv1.ResourceAttributes) bool {
			return a.Verb != "*" && (a.Resource != "secrets" || a.Verb == "create")
		}, "get secrets; patch secrets; delete secrets; list secrets; update secrets", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls++
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
				review, ok := object.(*authorizationv1.SelfSubjectAccessReview)
				if err != nil || !ok {
					t.Errorf("%T, %v", object, err)
					return
				}
				review.SetGroupVersionKind(authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview"))
				review.Status.Allowed = c.allow(*review.Spec.ResourceAttributes)
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(review)
			}))
			t.Cleanup(server.Close)
			cluster, err := connect(kubeconfigOf(t, server.URL, "{}"), kube.Overrides{})
			testkit.Must(t, err)
			x := &runner{Options: Options{System: "ampbridge-system"}, cluster: cluster}
			denied, err := x.deniedRights(t.Context())
			testkit.Must(t, err)
			got := strings.Join(denied, "; ")
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("%s, want %s", got, c.want)
			}
			if c.calls > 0 && calls != c.calls {
				t.Errorf("%d calls", calls)
			}
		})
	}
}

// The list has every kind of the chart's templates, except those of optional APIs and those
// that are off by default.
func TestChartResourcesAreTheChartsKinds(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "charts", "ampbridge", "templates", "*.yaml"))
	testkit.Must(t, err)
	object := regexp.MustCompile(`(?m)^apiVersion: (\S+)\nkind: (\S+)$`)
	kinds := map[string]bool{}
	for _, file := range files {
		for _, m := range object.FindAllStringSubmatch(testkit.ReadFile(t, file), -1) {
			if !strings.Contains(m[1], "cert-manager.io") && !strings.Contains(m[1], "monitoring.coreos.com") {
				kinds[strings.ToLower(m[2])] = true
			}
		}
	}
	if len(kinds) < 10 {
		t.Fatalf("the templates have only %v", kinds)
	}
	for kind := range kinds {
		if kind == "networkpolicy" || kind == "cronjob" {
			continue
		}
		if !slices.ContainsFunc(chartResources, func(r chartResource) bool {
			return r.name == kind+"s" || r.name == strings.TrimSuffix(kind, "y")+"ies"
		}) {
			t.Errorf("the chart has a %s, and --pre does not ask for it", kind)
		}
	}
}

// A role that cannot be read may be missing: its absence is not counted as its presence.
func TestRolesToMake(t *testing.T) {
	cloud := awstest.Start(t, awstest.Options{})
	account := cloud.AccountIn("aws", "111122223333")
	cloud.Setenv(t, account.AdminCredentials())
	x := &runner{policy: policytest.Parse(t, policytest.Granting("prometheus", "monitoring")), issuer: "https://issuer.example.com"}
	i, err := awsiam.New(nil).Inspect(t.Context(), x.target(x.policy.Destinations[0]))
	testkit.Must(t, err)
	if n, problem := x.rolesToMake(t.Context(), i, "111122223333"); n != 1 || problem != nil {
		t.Errorf("%d, %+v", n, problem)
	}
	cloud.Fail("iam:GetRole", awstest.Deny)
	if _, problem := x.rolesToMake(t.Context(), i, "111122223333"); problem == nil || problem.Status != check.Skip {
		t.Errorf("%+v", problem)
	}
}
