package awstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Workspace is an AMP workspace.
type Workspace struct {
	ID      string // ws-<uuid>
	ARN     string
	Alias   string
	Region  string
	Account string // the account's ID

	created time.Time
	tags    map[string]string
}

// RemoteWriteURL is where Prometheus writes to when the double's endpoint is base (URL or TLSURL).
func (w *Workspace) RemoteWriteURL(base string) string {
	return base + "/workspaces/" + w.ID + "/api/v1/remote_write"
}

// CreateWorkspace makes a workspace.
func (a *Account) CreateWorkspace(region, alias string) *Workspace {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.addWorkspace(region, alias, nil)
}

// AddWorkspace makes a workspace of that ID, which no other of the Cloud may have: for policies that are
// written before there is one.
func (a *Account) AddWorkspace(region, id string) *Workspace {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.workspace(region, id, "", nil)
}

func (a *Account) addWorkspace(region, alias string, tags map[string]string) *Workspace {
	return a.workspace(region, "ws-"+randomUUID(), alias, tags)
}

func (a *Account) workspace(region, id, alias string, tags map[string]string) *Workspace {
	w := &Workspace{
		ID: id, ARN: a.arn("aps", region, "workspace/"+id), Alias: alias, Region: region, Account: a.ID,
		created: a.cloud.now(), tags: tags,
	}
	a.cloud.workspaces[id] = w
	return w
}

// ampCall is a call to AMP on its way.
type ampCall struct {
	cloud     *Cloud
	r         *http.Request
	body      []byte
	workspace string // ID, empty for calls on all of them
	path      string // in the workspace's own API, escaped, such as /api/v1/query; empty on the control plane
	record    *Call
	write     *Write // nil where the call is no remote write
	stored    []bool // which of the kept metrics' samples were stored; empty: all of them, or none
}

// ampAction is the API's name for a request: for the data plane that of the permission it needs.
func ampAction(method, workspace, path string) string {
	switch {
	case workspace == "" && method == http.MethodPost:
		return "CreateWorkspace"
	case workspace == "" && method == http.MethodGet:
		return "ListWorkspaces"
	case path == "" && method == http.MethodGet:
		return "DescribeWorkspace"
	case path == "/api/v1/remote_write" && method == http.MethodPost:
		return "RemoteWrite"
	case method != http.MethodGet && method != http.MethodPost:
		return ""
	case path == "/api/v1/query", path == "/api/v1/query_range", path == "/api/v1/query_exemplars":
		return "QueryMetrics"
	case path == "/api/v1/labels", strings.HasPrefix(path, "/api/v1/label/"):
		return "GetLabels"
	case path == "/api/v1/series":
		return "GetSeries"
	case path == "/api/v1/metadata":
		return "GetMetricMetadata"
	}
	return ""
}

func (c *Cloud) serveAMP(w http.ResponseWriter, r *http.Request, body []byte) {
	rest := strings.Trim(strings.TrimPrefix(r.URL.EscapedPath(), "/workspaces"), "/")
	id, path, below := strings.Cut(rest, "/")
	if below {
		path = "/" + path
	}
	call := &ampCall{cloud: c, r: r, body: body, workspace: id, path: path}
	call.record = &Call{Service: "aps", Action: ampAction(r.Method, id, path), Account: c.accountOf(r, "")}
	c.mu.Lock()
	if known := c.workspaces[id]; known != nil {
		call.record.Account = known.Account
	}
	c.mu.Unlock()
	if call.record.Action == "RemoteWrite" {
		s, _ := parseSignature(r.Header.Get("Authorization"))
		call.write = &Write{Workspace: id, AccessKeyID: s.accessKeyID, Bytes: len(body)}
	}

	cut, answer, err := call.answer()
	if err != nil {
		failure := asAPIError(err)
		call.record.Code, call.record.Message, call.record.Status = failure.Code, failure.Message, failure.Status
		answer = errorAnswer(failure)
	} else {
		call.record.Status = answer.status
		if answer.status >= http.StatusBadRequest {
			call.record.Code, call.record.Message = "Prometheus", strings.TrimSpace(string(answer.body))
		}
	}
	if cut {
		call.record.Status = 0
	}
	call.finish()
	if cut {
		reset(w)
		return
	}
	maps.Copy(w.Header(), answer.header)
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body) // the client went away
}

// finish keeps the records.
func (a *ampCall) finish() {
	a.record.Time = a.cloud.Now()
	if a.write != nil {
		a.write.Time, a.write.Status = a.record.Time, a.record.Status
		if a.record.Code != "" {
			a.write.Reason = a.record.Code + ": " + a.record.Message
		}
		a.cloud.recordWrite(*a.write)
		if keep := a.cloud.options.Keep; len(keep) > 0 {
			a.cloud.kept.add(a, keep)
		}
	}
	a.cloud.recordCall(*a.record)
}

// answer is a finished HTTP answer.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func jsonAnswer(status int, value any) (answer, error) {
	body, err := json.Marshal(value)
	return answer{status, http.Header{"Content-Type": {"application/json"}}, body}, err
}

func errorAnswer(e *apiError) answer {
	header := http.Header{
		"Content-Type":     {"application/json"},
		"X-Amzn-Errortype": {e.Code},
		"X-Amzn-Requestid": {randomUUID()},
	}
	body, err := json.Marshal(map[string]string{"message": e.Message})
	if err != nil {
		panic(err) // strings always marshal
	}
	return answer{e.Status, header, body}
}

// answer carries the call out. Cut is true where the client must get no answer.
func (a *ampCall) answer() (cut bool, result answer, err error) {
	c := a.cloud
	cut, err = c.strike(a.r.Context(), c.faults.find("aps:"+a.record.Action, a.record.Account))
	switch {
	case errors.Is(err, errReset):
		return true, result, err
	case errors.Is(err, errDenied):
		return false, result, apiErr(http.StatusForbidden, "AccessDeniedException", "Access denied")
	case errors.Is(err, errThrottled):
		return false, result, apiErr(http.StatusTooManyRequests, "ThrottlingException", "Rate exceeded")
	case errors.Is(err, errInternal):
		return false, result, apiErr(http.StatusInternalServerError, "InternalServerException", "Internal server error")
	case err != nil:
		return false, result, err
	case a.record.Action == "":
		return false, result, apiErrf(http.StatusNotFound, "UnknownOperationException", "%s %s", a.r.Method, a.r.URL.Path)
	}
	caller, signature, failure, message := c.authenticate(a.r, a.body, "aps")
	if caller == nil {
		return cut, result, ampAuthError(failure, message)
	}
	a.record.Principal = caller.arn()
	if a.write != nil {
		a.write.SessionName = caller.sessionName
	}
	workspace, err := a.authorize(caller, signature.region)
	if err != nil {
		return cut, result, err
	}
	if a.path == "" {
		result, err = a.control(caller.account, signature.region, workspace)
	} else {
		result, err = a.data(workspace)
	}
	return cut, result, err
}

// ampAuthError is AMP's error for a request that is not authentic.
func ampAuthError(failure authFailure, message string) error {
	switch failure {
	case missingToken:
		return apiErr(http.StatusForbidden, "MissingAuthenticationTokenException", "Missing Authentication Token")
	case incompleteSignature:
		return apiErr(http.StatusForbidden, "IncompleteSignatureException", message)
	case unknownKey:
		return apiErr(http.StatusForbidden, "UnrecognizedClientException", message)
	case expiredToken:
		return apiErr(http.StatusForbidden, "ExpiredTokenException", message)
	default:
		return apiErr(http.StatusForbidden, "InvalidSignatureException", message)
	}
}

// authorize lets the caller do what it asks for, in the region it signed for. A workspace belongs to its own
// account: nobody else may do anything with it.
func (a *ampCall) authorize(caller *credential, region string) (*Workspace, error) {
	c := a.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	name := a.workspace
	if name == "" {
		name = "*"
	}
	resource := caller.account.arn("aps", region, "workspace/"+name)
	w := c.workspaces[a.workspace]
	if w != nil {
		if w.Region != region {
			return nil, apiErr(http.StatusForbidden, "InvalidSignatureException", "Credential should be scoped to a valid region.")
		}
		resource = w.ARN
	}
	context := c.contextOf(caller)
	context.set("aws:RequestedRegion", region)
	if w != nil {
		for key, value := range w.tags {
			context.set("aws:ResourceTag/"+key, value)
		}
	}
	action := "aps:" + a.record.Action
	ok, reason := c.permissionsOf(caller).decide(access{action, resource, context})
	if ok && w != nil && w.Account != caller.account.ID {
		ok, reason = false, "because no resource-based policy allows the "+action+" action"
	}
	if !ok {
		return nil, apiErrf(http.StatusForbidden, "AccessDeniedException", "User: %s is not authorized to perform: %s on resource: %s %s",
			caller.arn(), action, resource, reason)
	}
	if w == nil && a.workspace != "" {
		return nil, apiErrf(http.StatusNotFound, "ResourceNotFoundException", "Workspace %s not found", a.workspace)
	}
	return w, nil
}

type workspaceStatus struct {
	Code string `json:"statusCode"`
}

type workspaceJSON struct {
	ID        string            `json:"workspaceId"`
	ARN       string            `json:"arn"`
	Alias     string            `json:"alias,omitempty"`
	Status    workspaceStatus   `json:"status"`
	CreatedAt float64           `json:"createdAt,omitempty"` // seconds since the epoch
	Endpoint  string            `json:"prometheusEndpoint,omitempty"`
	Tags      map[string]string `json:"tags"`
}

func (a *ampCall) json(w *Workspace) workspaceJSON {
	scheme := "http"
	if a.r.TLS != nil {
		scheme = "https"
	}
	tags := w.tags
	if tags == nil {
		tags = map[string]string{}
	}
	return workspaceJSON{
		ID: w.ID, ARN: w.ARN, Alias: w.Alias, Status: workspaceStatus{"ACTIVE"}, CreatedAt: float64(w.created.UnixMilli()) / 1000,
		Endpoint: fmt.Sprintf("%s://%s/workspaces/%s/", scheme, a.r.Host, w.ID), Tags: tags,
	}
}

// control answers the control plane.
func (a *ampCall) control(account *Account, region string, w *Workspace) (answer, error) {
	c := a.cloud
	switch a.record.Action {
	case "DescribeWorkspace":
		return jsonAnswer(http.StatusOK, map[string]any{"workspace": a.json(w)})
	case "CreateWorkspace":
		var request struct {
			Alias string            `json:"alias"`
			Tags  map[string]string `json:"tags"`
			Token string            `json:"clientToken"`
		}
		if len(a.body) > 0 && json.Unmarshal(a.body, &request) != nil {
			return answer{}, apiErr(http.StatusBadRequest, "ValidationException", "The request body is not valid JSON")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		// The same token again is the same call, whose answer was lost.
		token := region + " " + request.Token
		w := account.made[token]
		if w == nil || request.Token == "" {
			w = account.addWorkspace(region, request.Alias, request.Tags)
			account.made[token] = w
		}
		made := a.json(w)
		made.CreatedAt, made.Endpoint, made.Alias = 0, "", ""
		return jsonAnswer(http.StatusAccepted, made)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		found := []workspaceJSON{}
		for _, id := range slices.Sorted(maps.Keys(c.workspaces)) {
			w := c.workspaces[id]
			if w.Account == account.ID && w.Region == region && strings.HasPrefix(w.Alias, a.query().Get("alias")) {
				found = append(found, a.json(w))
			}
		}
		return jsonAnswer(http.StatusOK, map[string]any{"workspaces": found})
	}
}

func (a *ampCall) query() url.Values { return a.r.URL.Query() }

// data hands a request of the data plane, unchanged, to the workspace's Prometheus.
func (a *ampCall) data(w *Workspace) (answer, error) {
	if a.write == nil {
		return a.forward(w, a.path)
	}
	batch, err := readBatch(a.body)
	if err != nil {
		return answer{}, apiErrf(http.StatusBadRequest, "ValidationException", "bad remote write request: %v", err)
	}
	a.write.Samples = batch.samples
	// The clients' clock stamps the samples, wherever the double's own was moved.
	if age := time.Since(batch.oldest); age > maxSampleAge {
		return answer{}, apiErrf(http.StatusBadRequest, "ValidationException", "out of bounds: a sample is %s old", age.Round(time.Second))
	}
	if keep := a.cloud.options.Keep; len(keep) > 0 && a.cloud.options.Prometheus == "" {
		samples, err := samplesOf(a.body, keep)
		if err == nil {
			a.stored, err = a.cloud.kept.take(w.ID, samples)
		}
		return answer{status: http.StatusNoContent}, err
	}
	return a.forward(w, "/api/v1/write")
}

// forward hands the request to the workspace's Prometheus.
func (a *ampCall) forward(w *Workspace, path string) (answer, error) {
	backend, err := a.cloud.prometheus.of(a.cloud, w.ID)
	if err != nil {
		return answer{}, apiErrf(http.StatusInternalServerError, "InternalServerException", "the workspace's Prometheus: %v", err)
	}
	return backend.forward(a.r, path, a.body)
}
