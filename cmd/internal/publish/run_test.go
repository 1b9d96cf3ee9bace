package publish_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/cmd/internal/publish"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	region = "eu-west-1"
	who    = "https://issuer.example.com/dev"
)

// keySet writes a file with new RSA keys of these ids.
func keySet(t *testing.T, ids ...string) string {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, id := range ids {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: keyOf(t, id).Public(), KeyID: id, Algorithm: "RS256", Use: "sig"})
	}
	text, err := json.Marshal(set)
	testkit.Must(t, err)
	return testkit.TempFile(t, "file", string(text))
}

var keys = map[string]*rsa.PrivateKey{}

// keyOf is the same for the same id.
func keyOf(t *testing.T, id string) *rsa.PrivateKey {
	t.Helper()
	if keys[id] == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		testkit.Must(t, err)
		keys[id] = key
	}
	return keys[id]
}

// publishOnce runs the command for the issuer of the tests.
func publishOnce(t *testing.T, o publish.Options) (string, error) {
	t.Helper()
	if o.Issuer == "" && o.Discovery == "" && o.Kubeconfig == "" {
		o.Issuer = who
	}
	if o.Retain == 0 {
		o.Retain = 48 * time.Hour
	}
	var out strings.Builder
	err := publish.Run(t.Context(), o, &out)
	return out.String(), err
}

func keyIDs(t *testing.T, text []byte) string {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var ids []string
	for _, k := range set.Keys {
		ids = append(ids, k.KeyID)
	}
	return strings.Join(ids, " ")
}

// The report for programs has what the text has.
func TestReportForPrograms(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "public")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		o      publish.Options
		after  time.Duration
		keys   []publish.KeyReport
		writes int
	}{
		{"dry run", publish.Options{Keys: keySet(t, "a"), DryRun: true}, 0,
			[]publish.KeyReport{{ID: "a", State: publish.KeyAdded}}, 0},
		{"first", publish.Options{Keys: keySet(t, "a")}, 0, []publish.KeyReport{{ID: "a", State: publish.KeyAdded}}, 3},
		{"again", publish.Options{Keys: keySet(t, "a")}, 0, []publish.KeyReport{{ID: "a", State: publish.KeyKept}}, 0},
		{"another key", publish.Options{Keys: keySet(t, "b")}, 0,
			[]publish.KeyReport{{ID: "b", State: publish.KeyAdded}, {ID: "a", State: publish.KeyKept, Gone: now}}, 2},
		{"three days later", publish.Options{Keys: keySet(t, "b")}, 72 * time.Hour,
			[]publish.KeyReport{{ID: "b", State: publish.KeyKept}, {ID: "a", State: publish.KeyExpired, Gone: now}}, 0},
		{"prune", publish.Options{Keys: keySet(t, "b"), Prune: true}, 72 * time.Hour,
			[]publish.KeyReport{{ID: "b", State: publish.KeyKept}, {ID: "a", State: publish.KeyPruned, Gone: now}}, 2},
	} {
		c.o.To, c.o.Output = dir, []string{"json", "yaml"}[len(c.name)%2]
		c.o.Now = func() time.Time { return now.Add(c.after) }
		out, err := publishOnce(t, c.o)
		var r publish.Report
		if problem := yaml.UnmarshalStrict([]byte(out), &r); problem != nil || err != nil {
			t.Fatalf("%s: %v %v: %s", c.name, problem, err, out)
		}
		testkit.Equal(t, c.name+": keys", c.keys, r.Keys)
		if len(r.Written) != c.writes || r.Issuer != who || r.DryRun != c.o.DryRun || r.Place != dir {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "public")
	out, err := publishOnce(t, publish.Options{To: dir, Keys: keySet(t, "a"), DryRun: true})
	if err != nil || !strings.Contains(out, "+ key a (RS256) of the cluster\ndry run: nothing was written\n") {
		t.Fatal(out, err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a dry run made the folder: %v", err)
	}
	if out, err := publishOnce(t, publish.Options{To: dir, Keys: keySet(t, "a")}); err != nil {
		t.Fatal(out, err)
	}
	if out, err := publishOnce(
		t,
		publish.Options{To: dir, Keys: keySet(t, "b")},
	); err != nil ||
		!strings.Contains(out, "key a stays: gone from the cluster since") {
		t.Fatal(out, err)
	}
	read := func(name string) []byte {
		t.Helper()
		return []byte(testkit.ReadFile(t, filepath.Join(dir, name)))
	}
	if got := keyIDs(t, read("openid/v1/jwks")); got != "b a" {
		t.Errorf("keys %s, want b a", got)
	}
	for _, name := range []string{"openid/v1/jwks", ".well-known/openid-configuration"} {
		// Whoever serves the folder is another user.
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if temporary, _ := filepath.Glob(filepath.Join(dir, "openid", "v1", ".next-*")); len(temporary) > 0 {
		t.Errorf("left behind: %s", temporary)
	}
	var discovery map[string]any
	if err := json.Unmarshal(
		read(".well-known/openid-configuration"),
		&discovery,
	); err != nil || discovery["issuer"] != who ||
		discovery["jwks_uri"] != who+"/openid/v1/jwks" {
		t.Errorf("discovery %v, %v", discovery, err)
	}
	if out, err := publishOnce(
		t,
		publish.Options{To: dir, Keys: keySet(t, "b")},
	); err != nil ||
		!strings.HasSuffix(out, "public: up to date\n") {
		t.Errorf("a second run: %s%v", out, err)
	}
	soon := func() time.Time { return time.Now().Add(49 * time.Hour) }
	if out, err := publishOnce(
		t,
		publish.Options{To: dir, Keys: keySet(t, "b"), Prune: true, Now: soon},
	); err != nil ||
		!strings.Contains(out, "- key a: gone") {
		t.Errorf("pruning: %s%v", out, err)
	}
	if got := keyIDs(t, read("openid/v1/jwks")); got != "b" {
		t.Errorf("keys %s after pruning, want b", got)
	}
}

// What must not be published is not, and what stands there stays as it was.
func TestRefusals(t *testing.T) {
	private, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: keyOf(t, "a"), KeyID: "a", Algorithm: "RS256"}}})
	testkit.Must(t, err)
	dir := t.TempDir()
	if out, err := publishOnce(t, publish.Options{To: dir, Keys: keySet(t, "a")}); err != nil {
		t.Fatal(out, err)
	}
	before := tree(t, dir)
	document := func(issuer string) string { return testkit.TempFile(t, "file", `{"issuer":"`+issuer+`"}`) }
	another := keySet(t, "other")
	text := testkit.ReadFile(t, another)
	for name, c := range map[string]struct {
		o    publish.Options
		want string
	}{
		"a private key":  {publish.Options{Keys: testkit.TempFile(t, "file", string(private))}, `key "a" has the private member`},
		"another issuer": {publish.Options{Keys: keySet(t, "a"), Issuer: who + "/"}, "one place is for one issuer"},
		"not the expected one": {publish.Options{Keys: keySet(t, "a"), Issuer: who,
			Discovery: document("https://kubernetes.default.svc.cluster.local")},
			"the cluster's issuer is https://kubernetes.default.svc.cluster.local, --issuer is " + who},
		"a name of the cluster's own": {publish.Options{Keys: keySet(t, "a"),
			Discovery: document("https://kubernetes.default.svc.cluster.local")},
			"AWS cannot reach the host of the issuer"},
		"an address": {publish.Options{Keys: keySet(t, "a"), Discovery: document("https://10.0.0.1")}, "AWS cannot reach the host of " +
			"the issuer"},
		"not AWS's kind": {publish.Options{Keys: keySet(t, "a"), Discovery: document("https://10.0.0.1:6443")}, "has a port"},
		"another key of that id": {publish.Options{Keys: testkit.TempFile(t, "keys", strings.ReplaceAll(text, `"other"`, `"a"`))},
			`the kid "a" ` +
				`names another key`},
		"another bucket": {publish.Options{To: "s3://mine/dev", Keys: keySet(t, "a"), Issuer: "https://theirs.s3.eu-west-1.amazonaws.com/dev"},
			"AWS would not find what is written here"},
		"another prefix": {publish.Options{To: "s3://mine/prod", Keys: keySet(t, "a"), Issuer: "https://s3.eu-west-1.amazonaws.com/mine/dev"},
			"AWS would not find what is written here"},
		"no bucket's name":        {publish.Options{To: "s3://My_Bucket/x", Keys: keySet(t, "a")}, "is not a bucket's name"},
		"no slashes":              {publish.Options{To: "s3:acme/k3s", Keys: keySet(t, "a")}, "write --to s3://acme/k3s"},
		"one slash":               {publish.Options{To: "s3:/acme/k3s", Keys: keySet(t, "a")}, "write --to s3://acme/k3s"},
		"large letters":           {publish.Options{To: "S3://acme", Keys: keySet(t, "a")}, "write --to s3://acme"},
		"an ARN":                  {publish.Options{To: "arn:aws:s3:::acme/k3s", Keys: keySet(t, "a")}, "write --to s3://acme/k3s"},
		"another ARN":             {publish.Options{To: "arn:aws:iam::111122223333:role/x", Keys: keySet(t, "a")}, "write s3://BUCKET/PREFIX"},
		"an address without host": {publish.Options{To: "https:/acme", Keys: keySet(t, "a")}, "write s3://BUCKET/PREFIX, or a folder"},
		"a bucket without s3://": {publish.Options{To: "acme/k3s", Keys: keySet(t, "a"), Issuer: "https://acme.s3.eu-west-1.amazonaws.com/k3s"},
			"is s3://acme/k3s, and --to is the folder acme/k3s: write --to s3://acme/k3s, or for a folder --to ./acme/k3s"},
		"a folder for a bucket": {publish.Options{To: "public", Keys: keySet(t, "a"), Issuer: "https://s3.eu-west-1.amazonaws.com/acme"},
			"is s3://acme, and --to is the folder public: write --to s3://acme, or for a folder --to ./public"},
		"another kind of place":    {publish.Options{To: "gs://bucket/x", Keys: keySet(t, "a")}, "write s3://BUCKET/PREFIX, or a folder"},
		"a file that is no folder": {publish.Options{To: another, Keys: keySet(t, "a")}, "not a directory"},
	} {
		if c.o.To == "" {
			c.o.To = dir
		}
		if out, err := publishOnce(t, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q\n%s", name, err, c.want, out)
		}
	}
	testkit.Equal(t, "files", before, tree(t, dir))
	// What somebody broke is not written over.
	testkit.WriteFile(t, filepath.Join(dir, "openid/v1/jwks"), "{")
	if out, err := publishOnce(
		t,
		publish.Options{To: dir, Keys: keySet(t, "a")},
	); err == nil ||
		!strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("%v\n%s", err, out)
	}
	// A folder for a bucket is fine where it is named as a folder, to be copied later.
	t.Chdir(t.TempDir())
	for _, folder := range []string{"./public", "../elsewhere", t.TempDir()} {
		o := publish.Options{To: folder, Keys: keySet(t, "a"), Issuer: "https://s3.eu-west-1.amazonaws.com/acme"}
		if out, err := publishOnce(t, o); err != nil {
			t.Errorf("%s: %v\n%s", folder, err, out)
		}
	}
	// Ahead of a switch the two differ, and that is said.
	ahead := publish.Options{
		To:        t.TempDir(),
		Keys:      keySet(t, "a"),
		Issuer:    who,
		Ahead:     true,
		Discovery: document("https://kubernetes.default.svc.cluster.local"),
	}
	if out, err := publishOnce(t, ahead); err != nil || !strings.Contains(out, "issuer "+who+"\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	testkit.Must(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			all[path] = testkit.ReadFile(t, path)
		}
		return err
	}))
	return all
}

// cloud is AWS with a bucket, and credentials in the environment that may do
// what docs/guides/issuer.md says, and nothing else.
func cloud(t *testing.T) (*awstest.Cloud, *awstest.Account, *awstest.Bucket) {
	t.Helper()
	c := awstest.Start(t, awstest.Options{})
	account := c.Account("111122223333")
	credentials, err := account.PutUser("publisher", publisherPolicy(t))
	testkit.Must(t, err)
	c.Setenv(t, credentials)
	return c, account, account.CreateBucket(region, "my-issuer")
}

// publisherPolicy is the one that the documentation shows.
func publisherPolicy(t *testing.T) string {
	t.Helper()
	text := testkit.ReadFile(t, "../../../docs/guides/issuer.md")
	_, after, _ := strings.Cut(text, "<!-- publisher -->\n```json\n")
	document, _, found := strings.Cut(after, "\n```")
	if !found {
		t.Fatal("docs/guides/issuer.md shows no policy of the publisher")
	}
	return document
}

func TestBucket(t *testing.T) {
	const who = "https://my-issuer.s3.eu-west-1.amazonaws.com/dev"
	_, account, bucket := cloud(t)
	o := publish.Options{To: "s3://my-issuer/dev", Keys: keySet(t, "a"), Issuer: who}
	if out, err := publishOnce(t, o); err != nil {
		t.Fatal(out, err)
	}
	// The keys are there before anything points to them.
	testkit.Equal(t, "writes",
		[]string{"dev/openid/v1/jwks", "dev/.well-known/openid-configuration", "dev/openid/v1/jwks-state.json"},
		bucket.Writes(),
	)
	for key, contentType := range map[string]string{"dev/openid/v1/jwks": "application/jwk-set+json", "dev/.well-known/" +
		"openid-configuration": "application/json"} {
		if object, _ := bucket.Object(key); object.ContentType != contentType || object.CacheControl != "public, max-age=300" {
			t.Errorf("%s: %q, %q", key, object.ContentType, object.CacheControl)
		}
	}
	// A run that is cut off after the keys is made good by the next.
	injection := account.Fail("s3:PutObject", awstest.Lose.Times(1))
	o.Keys = keySet(t, "a", "b")
	if out, err := publishOnce(t, o); err != nil {
		t.Fatal(out, err)
	}
	injection.Stop()
	if object, _ := bucket.Object("dev/openid/v1/jwks"); keyIDs(t, object.Data) != "a b" {
		t.Errorf("keys %s", object.Data)
	}
	if out, err := publishOnce(t, o); err != nil || !strings.HasSuffix(out, "s3://my-issuer/dev: up to date\n") {
		t.Errorf("a second run: %s%v", out, err)
	}
	account.Fail("s3:PutObject", awstest.Deny)
	o.Keys = keySet(t, "a", "b", "c")
	if out, err := publishOnce(t, o); err == nil || !strings.Contains(err.Error(), "PutObject: AccessDenied") {
		t.Errorf("%s%v", out, err)
	}
}

// Two control planes of one cluster publish at once, each its own key: neither is
// lost.
func TestTwoAtOnce(t *testing.T) {
	const who = "https://my-issuer.s3.eu-west-1.amazonaws.com"
	_, _, bucket := cloud(t)
	done := make(chan error)
	sets := []string{keySet(t, "a"), keySet(t, "b"), keySet(t, "c")}
	for _, set := range sets {
		go func() {
			_, err := publishOnce(t, publish.Options{To: "s3://my-issuer", Keys: set, Issuer: who})
			done <- err
		}()
	}
	for range sets {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	object, _ := bucket.Object("openid/v1/jwks")
	got := strings.Fields(keyIDs(t, object.Data))
	testkit.Equal(t, "keys", []string{"a", "b", "c"}, got, cmpopts.SortSlices(strings.Compare))
}
