package doctor_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy/check"
)

// follow runs the commands of a fix. ampbridge is the program itself; kubectl
// and aws are read word by word and done with their own libraries, so that a
// command that these programs would not take fails here too.
func (s *fixture) follow(fix *check.Fix) {
	s.Helper()
	if fix == nil || len(fix.Commands) == 0 {
		s.Fatal("the fix has no command")
	}
	for _, c := range fix.Commands {
		s.Logf("$ %s", c)
		switch c[0] {
		case "ampbridge":
			s.run(append(slices.Clone([]string(c[1:])), "--kubeconfig", s.kube.Kubeconfig())...)
		case "kubectl":
			s.kubectl(readArgs(c[1:]))
		case "aws":
			s.aws(readArgs(c[1:]))
		default:
			s.Fatalf("no such program: %s", c[0])
		}
	}
}

// args are words, and flags that take a value.
type args struct {
	words []string
	flags map[string]string
	yes   map[string]bool
}

// switches are the flags without a value.
var switches = []string{"--overwrite", "--set-as-default"}

func readArgs(list []string) args {
	a := args{flags: map[string]string{}, yes: map[string]bool{}}
	for i := 0; i < len(list); i++ {
		switch {
		case slices.Contains(switches, list[i]):
			a.yes[list[i]] = true
		case strings.HasPrefix(list[i], "--"):
			a.flags[list[i]] = list[i+1]
			i++
		default:
			a.words = append(a.words, list[i])
		}
	}
	return a
}

func (s *fixture) kubectl(a args) {
	s.Helper()
	client, ns := s.kube.Client().CoreV1(), a.flags["--namespace"]
	change := func(kind, field, change string) {
		name, value, set := strings.Cut(change, "=")
		patch := fmt.Sprintf(`{"metadata":{%q:{%q:%q}}}`, field, name, value)
		if !set {
			patch = fmt.Sprintf(`{"metadata":{%q:{%q:null}}}`, field, strings.TrimSuffix(name, "-"))
		}
		var err error
		switch kind {
		case "namespace":
			_, err = client.Namespaces().Patch(s.Context(), a.words[2], types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		case "serviceaccount":
			_, err = client.ServiceAccounts(ns).Patch(s.Context(), a.words[2], types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		default:
			err = fmt.Errorf("kubectl: no such kind: %s", kind)
		}
		s.try(err)
	}
	switch verb := a.words[0]; verb {
	case "label":
		change(a.words[1], "labels", a.words[3])
	case "annotate":
		change(a.words[1], "annotations", a.words[3])
	case "create":
		if a.words[1] != "serviceaccount" {
			s.Fatalf("kubectl create %s", a.words[1])
		}
		s.must(
			client.ServiceAccounts(
				ns,
			).Create(
				s.Context(),
				&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: a.words[2]}},
				metav1.CreateOptions{},
			),
		)
	case "delete":
		s.try(client.Pods(ns).Delete(s.Context(), a.words[2], metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	default:
		s.Fatalf("kubectl %s", verb)
	}
}

func (s *fixture) aws(a args) {
	s.Helper()
	var err error
	switch call := strings.Join(a.words, " "); call {
	case "iam add-client-id-to-open-id-connect-provider":
		_, err = s.iam.AddClientIDToOpenIDConnectProvider(s.Context(), &iam.AddClientIDToOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: aws.String(a.flags["--open-id-connect-provider-arn"]), ClientID: aws.String(a.flags["--client-id"]),
		})
	case "iam update-open-id-connect-provider-thumbprint":
		_, err = s.iam.UpdateOpenIDConnectProviderThumbprint(s.Context(), &iam.UpdateOpenIDConnectProviderThumbprintInput{
			OpenIDConnectProviderArn: aws.String(
				a.flags["--open-id-connect-provider-arn"],
			),
			ThumbprintList: []string{a.flags["--thumbprint-list"]},
		})
	case "iam create-open-id-connect-provider":
		s.createProvider(a.flags["--url"], []string{a.flags["--client-id-list"]}, []string{a.flags["--thumbprint-list"]})
	case "iam create-role":
		_, err = s.iam.CreateRole(s.Context(), &iam.CreateRoleInput{
			RoleName: aws.String(
				a.flags["--role-name"],
			),
			Path:                     aws.String(a.flags["--path"]),
			AssumeRolePolicyDocument: aws.String(a.flags["--assume-role-policy-document"]),
		})
	case "iam update-assume-role-policy":
		_, err = s.iam.UpdateAssumeRolePolicy(s.Context(), &iam.UpdateAssumeRolePolicyInput{
			RoleName: aws.String(a.flags["--role-name"]), PolicyDocument: aws.String(a.flags["--policy-document"]),
		})
	case "iam put-role-policy":
		_, err = s.iam.PutRolePolicy(s.Context(), &iam.PutRolePolicyInput{
			RoleName: aws.String(
				a.flags["--role-name"],
			),
			PolicyName:     aws.String(a.flags["--policy-name"]),
			PolicyDocument: aws.String(a.flags["--policy-document"]),
		})
	case "iam create-policy-version":
		// The double's policies have one version: the new one takes its place.
		name := a.flags["--policy-arn"][strings.LastIndexByte(a.flags["--policy-arn"], '/')+1:]
		_, err = s.account.PutManagedPolicy(name, a.flags["--policy-document"])
	default:
		s.Fatalf("aws %s", call)
	}
	s.try(err)
}
