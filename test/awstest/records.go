package awstest

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Call is the record of one call.
type Call struct {
	Time    time.Time // by the double's clock
	Service string    // iam, sts, aps, s3
	// Action is the API's name of the call (AssumeRoleWithWebIdentity, CreateRole). For the data plane
	// of AMP it is the name of the permission (RemoteWrite, QueryMetrics).
	Action string
	// Account is the role's account for STS, and the workspace's for AMP.
	Account string
	// Principal is the caller's ARN; empty if it is not known.
	Principal string
	// Code is the error's code; empty for success.
	Code string
	// Message is the error's message.
	Message string
	// Status is the HTTP status; 0 if the connection was cut.
	Status int
}

// Write is the record of one remote write request.
type Write struct {
	Time        time.Time // by the double's clock
	Workspace   string    // the workspace's ID
	Status      int       // the HTTP status; 0 if the connection was cut
	Reason      string    // why it was refused; empty for success
	AccessKeyID string    // the signer's, whether or not it is valid
	SessionName string    // of the session that signed; empty if that is not known
	Bytes       int       // of the body as sent, compressed
	Samples     int       // samples and histograms in it; 0 if it was refused before it was parsed
}

// Stored reports whether the write's samples were stored.
func (w Write) Stored() bool { return w.Status/100 == 2 }

type records struct {
	mu     sync.Mutex
	calls  []Call
	writes []Write
}

// Calls returns all calls so far, in the order in which they ended.
func (c *Cloud) Calls() []Call {
	c.records.mu.Lock()
	defer c.records.mu.Unlock()
	return slices.Clone(c.records.calls)
}

// Writes returns the remote write requests to the workspace (its ID) so far, in the
// order in which they ended.
func (c *Cloud) Writes(workspace string) []Write {
	c.records.mu.Lock()
	defer c.records.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.records.writes), func(w Write) bool { return w.Workspace != workspace })
}

func (c *Cloud) recordCall(call Call) {
	c.records.mu.Lock()
	c.records.calls = append(c.records.calls, call)
	c.records.mu.Unlock()
	if c.options.Logf != nil {
		c.options.Logf("%s:%s account=%s principal=%s status=%d %s %s",
			call.Service, call.Action, call.Account, call.Principal, call.Status, call.Code, call.Message)
	}
}

func (c *Cloud) recordWrite(w Write) {
	c.records.mu.Lock()
	c.records.writes = append(c.records.writes, w)
	c.records.mu.Unlock()
}

// CountIAM counts the calls of IAM: those that read, and those that may write.
func CountIAM(calls []Call) (reads, writes int) {
	for _, c := range calls {
		switch {
		case c.Service != "iam":
		case strings.HasPrefix(c.Action, "Get"), strings.HasPrefix(c.Action, "List"):
			reads++
		default:
			writes++
		}
	}
	return reads, writes
}
