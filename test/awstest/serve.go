package awstest

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// maxBody is the largest body of a request, in bytes. AMP accepts 1 MB of compressed
// samples, IAM and STS much less.
const maxBody = 4 << 20

// ServeHTTP implements [http.Handler]: it is the endpoint of all services.
func (c *Cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	switch {
	case isS3(r):
		c.serveS3(w, r, body)
	case r.URL.Path == "/workspaces", strings.HasPrefix(r.URL.Path, "/workspaces/"), strings.HasPrefix(r.URL.Path, tagsPath):
		c.serveAMP(w, r, body)
	case r.URL.Path == "/" && (r.Method == http.MethodPost || r.Method == http.MethodGet && r.URL.Query().Has("Action")):
		c.serveQuery(w, r, body)
	default:
		http.Error(w, "neither IAM, STS (POST /), AMP (/workspaces) nor S3 (signed for it) is here", http.StatusNotFound)
	}
}

// apiVersions identifies the services of the query protocol.
var apiVersions = map[string]string{"2010-05-08": "iam", "2011-06-15": "sts"}

// queryCall is a call to IAM or STS in progress.
type queryCall struct {
	cloud  *Cloud
	r      *http.Request
	form   form
	caller *credential // nil if the call is unsigned
	region string      // the region in the signature
	record *Call
	// fetchedThumbprint is the issuer's thumbprint for a CreateOpenIDConnectProvider without one.
	fetchedThumbprint string
}

func (c *Cloud) serveQuery(w http.ResponseWriter, r *http.Request, body []byte) {
	parameters, err := url.ParseQuery(string(body))
	if err != nil {
		parameters = url.Values{}
	}
	// AWS also accepts parameters in the URL, where vmagent's own client writes them.
	for name, values := range r.URL.Query() {
		parameters[name] = append(parameters[name], values...)
	}
	call := &queryCall{cloud: c, r: r, form: form{parameters}}
	call.record = &Call{Service: apiVersions[parameters.Get("Version")], Action: parameters.Get("Action"), Status: http.StatusOK}
	call.record.Account = c.accountOf(r, call.form.Get("RoleArn"))

	cut, result, err := call.answer(body)
	if err != nil {
		failure := asAPIError(err)
		call.record.Code, call.record.Message, call.record.Status = failure.Code, failure.Message, failure.Status
	}
	if cut {
		call.record.Status = 0
	}
	call.record.Time = c.Now()
	// Record it before the answer, so that a client with the answer finds the record.
	c.recordCall(*call.record)
	switch {
	case cut:
		reset(w)
	case err != nil:
		_ = writeError(w, call.record.Service, asAPIError(err)) // an error means that the client disconnected
	default:
		_ = writeResult(w, call.record.Service, call.record.Action, result)
	}
}

// answer executes the call. If cut is true, the client must get no answer.
func (q *queryCall) answer(body []byte) (cut bool, result any, err error) {
	service, action := q.record.Service, q.record.Action
	cut, err = q.cloud.strike(q.r.Context(), q.cloud.faults.find(service+":"+action, q.record.Account))
	switch {
	case errors.Is(err, errReset):
		return true, nil, err
	case errors.Is(err, errDenied) && action == "AssumeRoleWithWebIdentity":
		return false, nil, errNotAuthorizedWebIdentity
	case err != nil:
		return false, nil, err
	}
	if service == "sts" && action == "AssumeRoleWithWebIdentity" {
		result, err = q.assumeRoleWithWebIdentity()
		return cut, result, err
	}
	operations := map[string]map[string]operation{"iam": iamOperations, "sts": stsOperations}[service]
	run, ok := operations[action]
	if !ok {
		return cut, nil, apiErrf(http.StatusBadRequest, "InvalidAction",
			"Could not find operation %s for version %s", action, q.form.Get("Version"))
	}
	credential, signature, failure, message := q.cloud.authenticate(q.r, body, service)
	if credential == nil {
		return cut, nil, queryAuthError(failure, message)
	}
	if err := checkRegion(q.r, service, signature.region, credential.account.Partition); err != nil {
		return cut, nil, err
	}
	q.caller, q.region = credential, signature.region
	q.record.Principal = credential.arn()
	if action == "CreateOpenIDConnectProvider" {
		if err := q.fetchThumbprint(); err != nil {
			return cut, nil, err
		}
	}
	q.cloud.mu.Lock()
	defer q.cloud.mu.Unlock()
	result, err = run(q)
	return cut, result, err
}

// operation executes a signed call, under the lock. With a nil result the answer has no result.
type operation func(*queryCall) (any, error)

// accountOf returns the account of a call before the call is
// verified: the role's, or else the signer's.
func (c *Cloud) accountOf(r *http.Request, roleARN string) string {
	if parts := strings.Split(roleARN, ":"); len(parts) > 5 {
		return parts[4]
	}
	s, _ := parseSignature(r.Header.Get("Authorization"))
	c.mu.Lock()
	defer c.mu.Unlock()
	if credential := c.credentials[s.accessKeyID]; credential != nil {
		return credential.account.ID
	}
	return ""
}

var queryAuthCodes = map[authFailure]string{
	missingToken: "MissingAuthenticationToken", unknownKey: "InvalidClientTokenId", expiredToken: "ExpiredToken",
}

// queryAuthError returns the error of IAM and STS for a request that is not authentic.
func queryAuthError(failure authFailure, message string) error {
	if failure == incompleteSignature {
		return apiErr(http.StatusBadRequest, "IncompleteSignature", message)
	}
	return apiErr(http.StatusForbidden, cmp.Or(queryAuthCodes[failure], "SignatureDoesNotMatch"), message)
}
