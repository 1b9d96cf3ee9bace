package awstest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// writeRequest is the body of a remote write of one sample.
func writeRequest(metric string, value float64, at time.Time) []byte {
	field := func(number protowire.Number, content []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
	}
	label := append(field(1, []byte("__name__")), field(2, []byte(metric))...)
	sample := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(value))
	sample = protowire.AppendVarint(protowire.AppendTag(sample, 2, protowire.VarintType), uint64(at.UnixMilli()))
	message := field(1, append(field(1, label), field(2, sample)...))
	// Snappy that compresses nothing: one literal with two bytes of length.
	header := append(binary.AppendUvarint(nil, uint64(len(message))), 61<<2, byte(len(message)-1), byte((len(message)-1)>>8))
	return append(header, message...)
}

// request is a signed request to AMP. Change, if not nil, tampers with it before it is signed.
func (f *fixture) request(method, path string, body []byte, creds awstest.Credentials, change func(*http.Request)) *http.Request {
	f.t.Helper()
	r := f.unsigned(method, path, body)
	if change != nil {
		change(r)
	}
	f.sign(r, body, creds, "aps", region, time.Now())
	return r
}

func (f *fixture) unsigned(method, path string, body []byte) *http.Request {
	f.t.Helper()
	r, err := http.NewRequest(method, f.cloud.URL+path, bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("Content-Encoding", "snappy")
	r.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	return r
}

// send returns the status, the error's type and the body.
func (f *fixture) send(r *http.Request) (int, string, string) {
	f.t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("X-Amzn-Errortype"), testkit.ReadBody(f.t, response)
}

func (f *fixture) writePath() string { return "/workspaces/" + f.workspace.ID + "/api/v1/remote_write" }

func TestWriteAndQuery(t *testing.T) {
	f := newFixtureWith(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")})
	f.putRolePolicy(
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["aps:RemoteWrite","aps:QueryMetrics","aps:GetLabels"],` +
			`"Resource":"` + f.workspace.ARN + `"}}`,
	)
	creds := f.session()
	now := time.Now()
	body := writeRequest("answer", 42, now)
	if status, _, text := f.send(f.request("POST", f.writePath(), body, creds, nil)); status/100 != 2 {
		t.Fatalf("write: %d %s", status, text)
	}

	samples, err := f.cloud.Query(background, f.workspace.ID, "answer")
	if err != nil || len(samples) != 1 || samples[0].Value != 42 || samples[0].Metric["__name__"] != "answer" {
		t.Errorf("Query() = %v, %v", samples, err)
	}
	path := "/workspaces/" + f.workspace.ID + "/api/v1/query"
	get := f.request("GET", path+"?query="+url.QueryEscape(`answer + 1`), nil, creds, nil)
	if status, _, text := f.send(get); status != 200 || !strings.Contains(text, `"43"`) {
		t.Errorf("signed GET query: %d %s", status, text)
	}
	form := []byte("query=" + url.QueryEscape("answer * 2"))
	post := f.request("POST", path, form, creds, func(r *http.Request) {
		r.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	})
	if status, _, text := f.send(post); status != 200 || !strings.Contains(text, `"84"`) {
		t.Errorf("signed POST query: %d %s", status, text)
	}
	labels := f.request("GET", "/workspaces/"+f.workspace.ID+"/api/v1/label/__name__/values", nil, creds, nil)
	if status, _, text := f.send(labels); status != 200 || !strings.Contains(text, `"answer"`) {
		t.Errorf("labels: %d %s", status, text)
	}
	series := f.request("GET", "/workspaces/"+f.workspace.ID+"/api/v1/series?match[]=answer", nil, creds, nil)
	if status, code, _ := f.send(series); status != 403 || code != "AccessDeniedException" {
		t.Errorf("series without the permission: %d %s", status, code)
	}
	if status, _, text := f.send(f.unsigned("GET", path+"?query=answer", nil)); status != 403 {
		t.Errorf("unsigned query: %d %s", status, text)
	}

	writes := f.cloud.Writes(f.workspace.ID)
	if len(writes) != 1 || !writes[0].Stored() || writes[0].AccessKeyID != creds.AccessKeyID || writes[0].Bytes != len(body) ||
		writes[0].Samples != 1 || writes[0].SessionName != "dev-monitoring-prometheus-0" || writes[0].Reason != "" {
		t.Errorf("writes = %+v", writes)
	}
}

// TestWritesRefused is everything that must not be stored, and what AWS calls it.
func TestWritesRefused(t *testing.T) {
	f := newFixtureWith(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")})
	creds, body := f.session(), writeRequest("answer", 42, time.Now())
	other := f.account.CreateWorkspace(region, "other")
	foreign := f.cloud.Account("999900001111").CreateWorkspace(region, "foreign")
	path := func(id string) string { return "/workspaces/" + id + "/api/v1/remote_write" }
	signed := func(creds awstest.Credentials, service, region string, at time.Time) *http.Request {
		r := f.unsigned("POST", f.writePath(), body)
		f.sign(r, body, creds, service, region, at)
		return r
	}
	forged := creds
	forged.SecretAccessKey = strings.Repeat("A", 40)
	tokenless := creds
	tokenless.SessionToken = ""
	mixed := creds
	mixed.SessionToken = f.session().SessionToken
	unknown := awstest.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: strings.Repeat("A", 40)}
	tampered := func(change func(*http.Request)) *http.Request {
		r := signed(creds, "aps", region, time.Now())
		change(r)
		return r
	}
	reader, err := f.account.PutUser(
		"reader",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:QueryMetrics","Resource":"*"}}`,
	)
	testkit.Must(t, err)

	tests := []struct {
		name    string
		request *http.Request
		status  int
		code    string
	}{
		{"unsigned", f.unsigned("POST", f.writePath(), body), 403, "MissingAuthenticationTokenException"},
		{"signed with another secret", signed(forged, "aps", region, time.Now()), 403, "InvalidSignatureException"},
		{"unknown key", signed(unknown, "aps", region, time.Now()), 403, "UnrecognizedClientException"},
		{"without the session token", signed(tokenless, "aps", region, time.Now()), 403, "UnrecognizedClientException"},
		{"with another session's token", signed(mixed, "aps", region, time.Now()), 403, "UnrecognizedClientException"},
		{"for another service", signed(creds, "iam", region, time.Now()), 403, "InvalidSignatureException"},
		{"for another region", signed(creds, "aps", "us-east-1", time.Now()), 403, "InvalidSignatureException"},
		{"signed long ago", signed(creds, "aps", region, time.Now().Add(-6*time.Minute)), 403, "InvalidSignatureException"},
		{"signed ahead of time", signed(creds, "aps", region, time.Now().Add(6*time.Minute)), 403, "InvalidSignatureException"},
		{"another body", tampered(func(r *http.Request) {
			r.Body = io.NopCloser(bytes.NewReader(writeRequest("answer", 43, time.Now())))
		}), 403, "InvalidSignatureException"},
		{
			"another header",
			tampered(func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }),
			403,
			"InvalidSignatureException",
		},
		{"another path", tampered(func(r *http.Request) { r.URL.Path = path(other.ID) }), 403, "InvalidSignatureException"},
		{"another query", tampered(func(r *http.Request) { r.URL.RawQuery = "a=b" }), 403, "InvalidSignatureException"},
		{
			"no signature in the header",
			tampered(func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }),
			403,
			"IncompleteSignatureException",
		},
		{"another workspace of the account", f.request("POST", path(other.ID), body, creds, nil), 403, "AccessDeniedException"},
		{
			"a workspace of another account",
			f.request("POST", path(foreign.ID), body, f.account.AdminCredentials(), nil),
			403,
			"AccessDeniedException",
		},
		{
			"a workspace that does not exist",
			f.request("POST", path("ws-none"), body, f.account.AdminCredentials(), nil),
			404,
			"ResourceNotFoundException",
		},
		{"without the permission", f.request("POST", f.writePath(), body, reader, nil), 403, "AccessDeniedException"},
		{"not snappy", f.request("POST", f.writePath(), []byte("\x09garbage"), creds, nil), 400, "ValidationException"},
		{
			"a sample of two hours ago",
			f.request("POST", f.writePath(), writeRequest("answer", 1, time.Now().Add(-2*time.Hour)), creds, nil),
			400,
			"ValidationException",
		},
		{
			"an unknown path",
			f.request("POST", "/workspaces/"+f.workspace.ID+"/api/v1/admin", body, creds, nil),
			404,
			"UnknownOperationException",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, code, text := f.send(test.request)
			if status != test.status || code != test.code {
				t.Errorf("%d %s %s, want %d %s", status, code, text, test.status, test.code)
			}
		})
	}
	t.Run("expired session", func(t *testing.T) {
		f.cloud.Advance(2 * time.Hour)
		status, code, text := f.send(f.request("POST", f.writePath(), body, creds, nil))
		if status != 403 || code != "ExpiredTokenException" {
			t.Errorf("%d %s %s", status, code, text)
		}
	})
	for _, id := range []string{f.workspace.ID, other.ID, foreign.ID} {
		samples, err := f.cloud.Query(background, id, `{__name__=~".+"}`)
		if err != nil || len(samples) != 0 {
			t.Errorf("workspace %s holds %v, %v; want nothing", id, samples, err)
		}
	}
	for _, write := range f.cloud.Writes(f.workspace.ID) {
		if write.Stored() || write.Reason == "" {
			t.Errorf("write = %+v, want it refused with a reason", write)
		}
	}
}

// TestASessionFollowsItsRole is what a session may do when its role changes, which AWS looks up anew.
func TestASessionFollowsItsRole(t *testing.T) {
	f := newFixtureWith(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")})
	creds := f.session()
	write := func(want int) {
		t.Helper()
		if status, _, text := f.send(f.request("POST", f.writePath(), writeRequest("answer", 42, time.Now()), creds, nil)); status != want {
			t.Errorf("write: %d %s, want %d", status, text, want)
		}
	}
	name := new(writerRole)
	write(204)
	f.updateTrust(trust(f.provider, eksIssuer, "system:serviceaccount:other:other"))
	write(204) // a session outlives the trust that it came from

	boundary, err := f.account.PutManagedPolicy(
		"boundary",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:QueryMetrics","Resource":"*"}}`,
	)
	testkit.Must(t, err)
	testkit.Must(t, call(f.iam.PutRolePermissionsBoundary,
		&iam.PutRolePermissionsBoundaryInput{RoleName: name, PermissionsBoundary: new(boundary)})())
	write(403)
	testkit.Must(t, call(f.iam.DeleteRolePermissionsBoundary, &iam.DeleteRolePermissionsBoundaryInput{RoleName: name})())
	write(204)
	testkit.Must(t, call(f.iam.DeleteRolePolicy, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: new("remote-write")})())
	write(403)
	managed := new("arn:aws:iam::aws:policy/AmazonPrometheusRemoteWriteAccess")
	testkit.Must(t, call(f.iam.AttachRolePolicy, &iam.AttachRolePolicyInput{RoleName: name, PolicyArn: managed})())
	write(204)

	testkit.Must(t, call(f.iam.DetachRolePolicy, &iam.DetachRolePolicyInput{RoleName: name, PolicyArn: managed})())
	testkit.Must(t, call(f.iam.DeleteRole, &iam.DeleteRoleInput{RoleName: name})())
	f.createRole(writerRole, trust(f.provider, eksIssuer, subject))
	f.putRolePolicy(allowWrite(f.workspace.ARN))
	write(403) // another role of the same name
}

func TestControlPlane(t *testing.T) {
	f := newFixture(t)
	admin := f.account.AdminCredentials()
	var made struct{ WorkspaceID, ARN string }
	status, _, text := f.send(f.request("POST", "/workspaces", []byte(`{"alias":"second","tags":{"team":"x"}}`), admin, nil))
	if err := json.Unmarshal([]byte(text), &made); err != nil || status != 202 || !strings.HasPrefix(made.WorkspaceID, "ws-") {
		t.Fatalf("create: %d %s (%v)", status, text, err)
	}
	var described struct {
		Workspace struct {
			ARN, Alias, PrometheusEndpoint string
			CreatedAt                      float64
			Status                         struct{ StatusCode string }
			Tags                           map[string]string
		}
	}
	status, _, text = f.send(f.request("GET", "/workspaces/"+made.WorkspaceID, nil, admin, nil))
	if err := json.Unmarshal([]byte(text), &described); err != nil || status != 200 {
		t.Fatalf("describe: %d %s (%v)", status, text, err)
	}
	got := described.Workspace
	if got.ARN != made.ARN || got.Alias != "second" || got.Status.StatusCode != "ACTIVE" || got.Tags["team"] != "x" ||
		math.Abs(
			got.CreatedAt-float64(time.Now().Unix()),
		) > 300 || got.PrometheusEndpoint != f.cloud.URL+"/workspaces/"+made.WorkspaceID+"/" {
		t.Errorf("workspace = %+v", got)
	}
	if status, _, text := f.send(
		f.request("GET", "/workspaces?alias=sec", nil, admin, nil),
	); status != 200 ||
		strings.Count(text, `"workspaceId"`) != 1 {
		t.Errorf("list: %d %s", status, text)
	}
	if status, code, _ := f.send(
		f.request("GET", "/workspaces/"+f.workspace.ID, nil, f.session(), nil),
	); status != 403 ||
		code != "AccessDeniedException" {
		t.Errorf("describe without the permission: %d %s", status, code)
	}
}

// TestNoPrometheus is a double that was given no binary: it says so.
func TestNoPrometheus(t *testing.T) {
	f := newFixture(t)
	if status, _, text := f.send(
		f.request("POST", f.writePath(), writeRequest("a", 1, time.Now()), f.session(), nil),
	); status != 500 ||
		!strings.Contains(text, "Options.Prometheus names no binary") {
		t.Errorf("write: %d %s", status, text)
	}
	if _, err := f.cloud.Query(context.Background(), f.workspace.ID, "a"); err == nil {
		t.Error("a query without a Prometheus succeeds")
	}
}
