package publish_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/ampbridge/ampbridge/cmd/internal/publish"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const audience = "sts.amazonaws.com"

// A real API server whose issuer is nothing but what was published: AWS verifies
// its tokens before, during and after the rotation of its signing key.
func TestRotationOfARealIssuer(t *testing.T) {
	for name, c := range map[string]struct{ issuer, to string }{
		"folder": {who, filepath.Join(t.TempDir(), "public")},
		"bucket": {"https://my-issuer.s3.eu-west-1.amazonaws.com/dev", "s3://my-issuer/dev"},
	} {
		t.Run(name, func(t *testing.T) {
			cloud, account, bucket := cloud(t)
			published := http.FileServer(http.Dir(c.to))
			if name == "bucket" {
				published = bucket.Public("dev")
			}
			_, err := cloud.RegisterIssuer(c.issuer, published, awstest.PublicCA)
			testkit.Must(t, err)
			r := rotation{t, cloud, account, policy.Issuer(c.issuer), c.to}
			r.run()
		})
	}
}

type rotation struct {
	*testing.T
	cloud   *awstest.Cloud
	account *awstest.Account
	issuer  policy.Issuer
	to      string
}

func (r *rotation) run() {
	first := r.writeKey("first")
	cluster1 := r.cluster(first, first)
	token1 := r.token(cluster1)
	r.trust()
	r.refused("nothing is published", token1)
	r.publish(cluster1)
	r.accepted("published", token1)

	// The API server is told the new public key, and signs with the old one yet.
	second := r.writeKey("second")
	r.stop(cluster1)
	cluster2 := r.cluster(first, first, second)
	r.publish(cluster2)
	r.stop(cluster2)
	// Now it signs with the new one: it was published before, so nobody waits.
	cluster3 := r.cluster(second, first, second)
	token3 := r.token(cluster3)
	r.accepted("the new key", token3)
	r.accepted("the old key", token1)
	r.stop(cluster3)

	// The old key is taken away from the API server. Its tokens still live.
	cluster4 := r.cluster(second, second)
	r.publish(cluster4)
	r.accepted("the old key, gone from the API server", token1)
	r.publish(cluster4, "--prune")
	r.accepted("pruning too early", token1)
	r.publish(cluster4, "--prune", "later")
	r.forget()
	r.refused("pruned", token1)
	r.accepted("the key of the cluster", token3, r.token(cluster4))
	r.stop(cluster4)
}

// cluster is an API server with these keys; the flags of the last win, and the
// keys of the first are added.
func (r *rotation) cluster(signing string, all ...string) *cluster.Cluster {
	r.Helper()
	args := []string{"--service-account-signing-key-file=" + signing}
	for _, key := range all {
		args = append(args, "--service-account-key-file="+key)
	}
	return cluster.Start(r.T, cluster.Options{Issuer: string(r.issuer), ExtraAPIServerArgs: args})
}

func (r *rotation) stop(c *cluster.Cluster) {
	r.Helper()
	if err := c.Close(); err != nil {
		r.Error(err)
	}
}

// writeKey writes a signing key as kube-apiserver reads it.
func (r *rotation) writeKey(id string) string {
	r.Helper()
	block := pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(keyOf(r.T, id))}
	return testkit.TempFile(r.T, "file", string(pem.EncodeToMemory(&block)))
}

func (r *rotation) token(c *cluster.Cluster) string {
	r.Helper()
	token, err := c.Token(r.Context(), "default", "default", audience, 3600)
	testkit.Must(r, err)
	return token
}

func (r *rotation) publish(c *cluster.Cluster, flags ...string) {
	r.Helper()
	o := publish.Options{To: r.to, Kubeconfig: c.Kubeconfig(), Retain: 48 * time.Hour}
	for _, f := range flags {
		switch f {
		case "--prune":
			o.Prune = true
		case "later":
			o.Now = func() time.Time { return time.Now().Add(49 * time.Hour) }
		}
	}
	out, err := publishOnce(r.T, o)
	if err != nil {
		r.Fatal(out, err)
	}
	r.Log(out)
}

const roleName = "writer"

// trust registers the issuer and lets the default service account in.
func (r *rotation) trust() {
	r.Helper()
	provider, err := r.account.IAM().CreateOpenIDConnectProvider(
		r.Context(),
		&iam.CreateOpenIDConnectProviderInput{Url: new(string(r.issuer)), ClientIDList: []string{audience}},
	)
	testkit.Must(r, err)
	arn, err := policy.ParseARN(*provider.OpenIDConnectProviderArn)
	testkit.Must(r, err)
	trust := policy.TrustDocument(arn, r.issuer, audience, []policy.Subject{{Namespace: "default", ServiceAccount: "default"}})
	_, err = r.account.IAM().CreateRole(
		r.Context(),
		&iam.CreateRoleInput{RoleName: new(roleName), AssumeRolePolicyDocument: new(trust.String())},
	)
	testkit.Must(r, err)
}

func (r *rotation) assume(token string) error {
	_, err := r.cloud.AssumeWithToken(r.Context(), "arn:aws:iam::"+r.account.ID+":role/"+roleName, token)
	return err
}

func (r *rotation) accepted(when string, tokens ...string) {
	r.Helper()
	for i, token := range tokens {
		if err := r.assume(token); err != nil {
			r.Errorf("%s: token %d: %v", when, i, err)
		}
	}
}

func (r *rotation) refused(when, token string) {
	r.Helper()
	if err := r.assume(token); !errors.As(err, new(*ststypes.InvalidIdentityTokenException)) {
		r.Errorf("%s: %v, want InvalidIdentityToken", when, err)
	}
}

// forget lets the double's memory of the key set expire, as AWS's does.
func (r *rotation) forget() { r.cloud.Advance(time.Minute) }
