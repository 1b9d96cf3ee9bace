package reconcile

import (
	"errors"
	"fmt"
	"io"

	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Output formats.
const (
	Text = output.Text
	JSON = output.JSON
	YAML = output.YAML
)

// Report is the result of a run.
type Report struct {
	Plan plan.Plan `json:"plan"`
	// DryRun is true if nothing was applied.
	DryRun bool `json:"dryRun"`
	// Made is the number of changes that were applied.
	Made     int       `json:"made"`
	Failures []Failure `json:"failures"`
	// InSync is true if no change is left and nothing was refused.
	InSync bool `json:"inSync"`
	// unmanaged is true if the policy has trust.manage: none, so that AWS was not compared with it.
	unmanaged bool
}

// Failure is a change that was not made.
type Failure struct {
	Call     plan.Call  `json:"call"`
	Resource policy.ARN `json:"resource"`
	Error    string     `json:"error"`
	// skipped is true if the change was not tried because of another failure.
	skipped bool
}

func (r *Report) write(stdout io.Writer, format string) error {
	if format != Text {
		return output.Write(stdout, format, r)
	}
	var errs []error
	for _, f := range r.Failures {
		_, err := fmt.Fprintf(stdout, "! failed: %s: %s\n", f.Resource, f.Error)
		errs = append(errs, err)
	}
	_, err := fmt.Fprintln(stdout, r.closing())
	return errors.Join(append(errs, err)...)
}

func (r *Report) closing() string {
	switch {
	case r.DryRun && !r.Plan.InSync():
		return "sync: dry run: nothing was changed"
	case r.removes():
		return fmt.Sprintf("sync: removed: %d of %d deletions made, %d refused", r.Made, len(r.Plan.Changes), len(r.Plan.Refusals))
	case r.InSync && r.Made == 0 && r.unmanaged:
		return "sync: trust.manage is none: nothing was compared with AWS; ampbridge plan -o terraform writes what the " +
			"policy needs, and ampbridge doctor checks it"
	case r.InSync && r.Made == 0:
		return "sync: in sync: nothing to change"
	case r.InSync:
		return fmt.Sprintf("sync: in sync: %d of %d changes made", r.Made, len(r.Plan.Changes))
	}
	return fmt.Sprintf("sync: not in sync: %d of %d changes made, %d refused", r.Made, len(r.Plan.Changes), len(r.Plan.Refusals))
}

func (r *Report) removes() bool {
	return len(r.Plan.Changes) > 0 && r.Plan.Changes[0].Call.Deletes()
}
