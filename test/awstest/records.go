package awstest

import (
	"slices"
	"sync"
	"time"
)

// Call is the record of one call.
type Call struct {
	Time    time.Time // on the clock of the double
	Service string    // iam, sts, aps, s3
	// Action is the API's name for it (AssumeRoleWithWebIdentity, CreateRole), or for the data plane
	// of AMP the name of the permission (RemoteWrite, QueryMetrics).
	Action string
	// Account is the account concerned: the role's for STS, the workspace's for AMP.
	Account string
	// Principal is the ARN of the caller, empty where it is not known.
	Principal string
	// Code is the error's, empty for success.
	Code string
	// Message is the error's.
	Message string
	// Status is the HTTP status, 0 where the connection was cut.
	Status int
}

// Write is the record of one remote write request.
type Write struct {
	Time        time.Time // on the clock of the double
	Workspace   string    // the workspace's ID
	Status      int       // the HTTP status; 0 where the connection was cut
	Reason      string    // why it was refused; empty for success
	AccessKeyID string    // the signer's, whether or not it is valid
	SessionName string    // of the session that signed; empty where that is not known
	Bytes       int       // of the body as sent, compressed
	Samples     int       // samples and histograms in it; 0 where it was refused before it was read
}

// Stored is true for a write whose samples were kept.
func (w Write) Stored() bool { return w.Status/100 == 2 }

type records struct {
	mu     sync.Mutex
	calls  []Call
	writes []Write
}

// Calls is the record of all calls so far, in the order in which they ended.
func (c *Cloud) Calls() []Call {
	c.records.mu.Lock()
	defer c.records.mu.Unlock()
	return slices.Clone(c.records.calls)
}

// Writes is the record of the remote write requests to the workspace (its ID) so far, in the
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
