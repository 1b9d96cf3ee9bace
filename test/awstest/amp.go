package awstest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
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
	// active is the end of the state CREATING, and gone the end of DELETING; gone is zero if it was not deleted.
	active, gone time.Time
	tags         map[string]string
}

// SetWorkspaceDelay sets how long workspaces stay CREATING or DELETING from now on.
func (c *Cloud) SetWorkspaceDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.workspaceDelay = d
}

// status returns the workspace's status in AMP; empty if it does not exist any more.
func (w *Workspace) status(now time.Time) string {
	switch {
	case !w.gone.IsZero() && !now.Before(w.gone):
		return ""
	case !w.gone.IsZero():
		return "DELETING"
	case now.Before(w.active):
		return "CREATING"
	}
	return "ACTIVE"
}

// RemoteWriteURL returns the URL that Prometheus writes to if the double's endpoint is base (URL or TLSURL).
// CreateWorkspace creates a workspace.
func (w *Workspace) RemoteWriteURL(base string) string {
	return base + "/workspaces/" + w.ID + "/api/v1/remote_write"
}

// CreateWorkspace makes a workspace.
func (a *Account) CreateWorkspace(region, alias string) *Workspace {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.addWorkspace(region, alias, nil)
}

// AddWorkspace creates a workspace with that ID, which must be unique in the Cloud. It is for policies that are
// written before the workspace exists.
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

// ampCall is a call to AMP in progress.
type ampCall struct {
	cloud     *Cloud
	r         *http.Request
	body      []byte
	workspace string // ID; empty for calls about all workspaces
	path      string // in the workspace's own API, escaped, such as /api/v1/query; empty on the control plane
	record    *Call
	write     *Write // nil if the call is not a remote write
	stored    []bool // which of the kept metrics' samples were stored; empty if all of them were, or none
}

// tagsPath is the beginning of the paths for tags. The resource's ARN follows.
const tagsPath = "/tags/"

// ampAction returns the API's name for a request. For the data plane it is the name of the needed permission.
func ampAction(method, workspace, path string) string {
	switch {
	case strings.HasPrefix(workspace, "arn:"):
		return map[string]string{
			http.MethodGet: "ListTagsForResource", http.MethodPost: "TagResource", http.MethodDelete: "UntagResource",
		}[method]
	case path == "" && workspace != "" && method == http.MethodDelete:
		return "DeleteWorkspace"
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
	if arn, found := strings.CutPrefix(r.URL.Path, tagsPath); found {
		id, path = arn, ""
	}
	call := &ampCall{cloud: c, r: r, body: body, workspace: id, path: path}
	call.record = &Call{Service: "aps", Action: ampAction(r.Method, id, path), Account: c.accountOf(r, "")}
	call.workspace = id[strings.LastIndexByte(id, '/')+1:] // of the ARN, if the call is about tags
	c.mu.Lock()
	if known := c.workspaces[call.workspace]; known != nil {
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
	_, _ = w.Write(answer.body) // an error means that the client disconnected
}

// finish stores the records.
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

// answer is a complete HTTP answer.
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
		panic(err) // cannot happen: strings always marshal
	}
	return answer{e.Status, header, body}
}

// answer executes the call. If cut is true, the client must get no answer.
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

var ampAuthCodes = map[authFailure]string{
	missingToken:        "MissingAuthenticationTokenException",
	incompleteSignature: "IncompleteSignatureException",
	unknownKey:          "UnrecognizedClientException",
	expiredToken:        "ExpiredTokenException",
}

// ampAuthError returns AMP's error for a request that is not authentic.
func ampAuthError(failure authFailure, message string) error {
	if failure == missingToken {
		message = "Missing Authentication Token"
	}
	return apiErr(http.StatusForbidden, cmp.Or(ampAuthCodes[failure], "InvalidSignatureException"), message)
}

// authorize checks that the caller may make the call in the region that it signed for. Only a workspace's own
// account may use it.
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
	if w != nil && w.status(c.now()) == "" {
		w = nil
	}
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
	tags := a.requestTags()
	for key, value := range tags {
		context.set("aws:RequestTag/"+key, value)
	}
	if len(tags) > 0 {
		context.set("aws:TagKeys", slices.Sorted(maps.Keys(tags))...)
	}
	ok, reason := c.permissionsOf(caller).decide(access{action, resource, context})
	if ok && a.record.Action == "CreateWorkspace" && len(tags) > 0 {
		// To create something with tags, the caller needs the permission to tag it.
		action = "aps:TagResource"
		ok, reason = c.permissionsOf(caller).decide(access{action, resource, context})
	}
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
		ID: w.ID, ARN: w.ARN, Alias: w.Alias, Status: workspaceStatus{w.status(a.cloud.now())}, CreatedAt: float64(w.created.UnixMilli()) / 1000,
		Endpoint: fmt.Sprintf("%s://%s/workspaces/%s/", scheme, a.r.Host, w.ID), Tags: tags,
	}
}

// control handles the control plane.
func (a *ampCall) control(account *Account, region string, w *Workspace) (answer, error) {
	c := a.cloud
	switch a.record.Action {
	case "DescribeWorkspace":
		c.mu.Lock()
		defer c.mu.Unlock()
		return jsonAnswer(http.StatusOK, map[string]any{"workspace": a.json(w)})
	case "DeleteWorkspace":
		c.mu.Lock()
		defer c.mu.Unlock()
		if status := w.status(c.now()); status != "ACTIVE" {
			return answer{}, apiErrf(http.StatusConflict, "ConflictException", "Workspace %s is %s", w.ID, status)
		}
		w.gone = c.now().Add(c.workspaceDelay)
		return answer{status: http.StatusAccepted}, nil
	case "ListTagsForResource":
		c.mu.Lock()
		defer c.mu.Unlock()
		return jsonAnswer(http.StatusOK, map[string]any{"tags": a.json(w).Tags})
	case "TagResource", "UntagResource":
		return a.changeTags(account, w)
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
		// The same token again means the same call, after its answer was lost.
		token := region + " " + request.Token
		w := account.made[token]
		if w == nil || request.Token == "" {
			if len(request.Tags) > account.quotas.Tags {
				return answer{}, apiErrf(http.StatusBadRequest, "ValidationException", "More than %d tags", account.quotas.Tags)
			}
			if account.workspacesIn(region) >= account.quotas.Workspaces {
				return answer{}, apiErr(http.StatusPaymentRequired, "ServiceQuotaExceededException", "Workspaces per Region per account exceeded")
			}
			w = account.addWorkspace(region, request.Alias, request.Tags)
			w.active = w.created.Add(c.workspaceDelay)
			account.made[token] = w
		}
		made := a.json(w)
		made.Status.Code = "CREATING"
		made.CreatedAt, made.Endpoint, made.Alias = 0, "", ""
		return jsonAnswer(http.StatusAccepted, made)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		return a.list(account, region)
	}
}

// maxWorkspaces is the number of workspaces per page, unless the caller asks for fewer.
const maxWorkspaces = 100

// list returns one page, sorted by ID. The token is the last ID of the previous page.
func (a *ampCall) list(account *Account, region string) (answer, error) {
	size, query := maxWorkspaces, a.r.URL.Query()
	if text := query.Get("maxResults"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return answer{}, apiErr(http.StatusBadRequest, "ValidationException", "maxResults is 1 to 1000")
		}
		size = min(n, maxWorkspaces)
	}
	result := map[string]any{}
	found := []workspaceJSON{}
	for _, id := range slices.Sorted(maps.Keys(a.cloud.workspaces)) {
		w := a.cloud.workspaces[id]
		if w.Account != account.ID || w.Region != region || !strings.HasPrefix(w.Alias, query.Get("alias")) ||
			id <= query.Get("nextToken") || w.status(a.cloud.now()) == "" {
			continue
		}
		if len(found) == size {
			result["nextToken"] = found[size-1].ID
			break
		}
		found = append(found, a.json(w))
	}
	result["workspaces"] = found
	return jsonAnswer(http.StatusOK, result)
}

// workspacesIn counts the workspaces that use the quota of a region.
func (a *Account) workspacesIn(region string) int {
	n := 0
	for _, w := range a.cloud.workspaces {
		if w.Account == a.ID && w.Region == region && w.status(a.cloud.now()) != "" {
			n++
		}
	}
	return n
}

// requestTags returns the tags that a call sets.
func (a *ampCall) requestTags() map[string]string {
	var request struct {
		Tags map[string]string `json:"tags"`
	}
	if a.record.Action != "CreateWorkspace" && a.record.Action != "TagResource" || json.Unmarshal(a.body, &request) != nil {
		return nil
	}
	return request.Tags
}

func (a *ampCall) changeTags(account *Account, w *Workspace) (answer, error) {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	next := maps.Clone(w.tags)
	if next == nil {
		next = map[string]string{}
	}
	maps.Copy(next, a.requestTags())
	for _, key := range a.r.URL.Query()["tagKeys"] {
		delete(next, key)
	}
	if len(next) > account.quotas.Tags {
		return answer{}, apiErrf(http.StatusBadRequest, "ValidationException", "More than %d tags", account.quotas.Tags)
	}
	w.tags = next
	return jsonAnswer(http.StatusOK, map[string]any{})
}

// data passes a request of the data plane unchanged to the workspace's Prometheus.
func (a *ampCall) data(w *Workspace) (answer, error) {
	if a.write == nil {
		return a.forward(w, a.path)
	}
	batch, err := readBatch(a.body)
	if err != nil {
		return answer{}, apiErrf(http.StatusBadRequest, "ValidationException", "bad remote write request: %v", err)
	}
	a.write.Samples = batch.samples
	// The client's clock sets the samples' times, even if the double's clock was moved.
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

// forward passes the request to the workspace's Prometheus.
func (a *ampCall) forward(w *Workspace, path string) (answer, error) {
	backend, err := a.cloud.prometheus.of(a.cloud, w.ID)
	if err != nil {
		return answer{}, apiErrf(http.StatusInternalServerError, "InternalServerException", "the workspace's Prometheus: %v", err)
	}
	return backend.forward(a.r, path, a.body)
}
