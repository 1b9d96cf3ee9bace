package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/jsonread"
)

// configMap is the partial object of a ConfigMap with a policy.
type configMap struct {
	Metadata configMapMetadata
	Data     map[string]string
}

// ReadJSON decodes a v1.ConfigMap.
func (c *configMap) ReadJSON(r *jsonread.Reader) error {
	return jsonread.Object(r, c, (*configMap).member)
}

func (c *configMap) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "metadata":
		return jsonread.Object(r, &c.Metadata, (*configMapMetadata).member)
	case "data":
		return r.StringMap(&c.Data)
	}
	return r.SkipValue()
}

type configMapMetadata struct {
	Annotations map[string]string
}

func (m *configMapMetadata) member(r *jsonread.Reader, name []byte) error {
	if string(name) == "annotations" {
		return r.StringMap(&m.Annotations)
	}
	return r.SkipValue()
}

// Values of the label "decision" for reviews of the policy.
const (
	policyAccepted  = "accepted"
	policyRefused   = "refused"
	policyUnchecked = "unchecked"
)

// maxParts limits the lines and the items of lists in brackets in a policy that is checked here.
// The YAML decoder needs some hundred bytes for each. A policy with a thousand destinations and a
// thousand grants has 10,000 lines.
const maxParts = 20_000

// maxProblems limits how many mistakes one refusal lists.
const maxProblems = 50

// PolicyHandler answers reviews of the ConfigMap with the policy. It refuses a policy with mistakes
// and lists all of them. It admits with a warning what it cannot check: a policy that exceeds the
// limits, and a policy of another [policy.SchemaVersion], because an upgrade or a rollback changes
// the policy before it changes the webhook. key is the name of the policy's file.
func PolicyHandler(key string, d Dependencies) http.Handler {
	d.setDefaults()
	return &policyHandler{Dependencies: d, key: key, judging: make(chan struct{}, 1)}
}

type policyHandler struct {
	Dependencies
	key string
	// judging has an element while a policy is decoded. Only one is decoded at a time, because YAML
	// needs much memory.
	judging chan struct{}
}

// verdict is the handler's answer.
type verdict struct {
	decision string
	warnings []string
	problems []string
}

func (h *policyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := h.enter(w, r)
	if v == nil {
		return
	}
	defer v.leave()
	request, err := readReview[configMap](v, r, "ConfigMap", []string{"CREATE", "UPDATE"})
	var uid string
	var out verdict
	switch p := (*passed)(nil); {
	case errors.As(err, &p):
		uid, out = p.uid, unchecked(p.outcome.Warning)
	case err != nil:
		h.refuseRequest(w, r, err)
		return
	default:
		uid, out = request.UID, h.judge(r.Context(), &request.Object)
	}
	if len(out.problems) > 0 {
		err = writeRefusal(w, uid, "the policy is refused:\n"+strings.Join(out.problems, "\n"))
	} else {
		err = writeAnswer(w, uid, nil, out.warnings...)
	}
	h.Metrics.policyReviews.WithLabelValues(out.decision).Inc()
	attrs := []slog.Attr{slog.String("uid", uid), slog.String("decision", out.decision), slog.Int("problems", len(out.problems))}
	for _, warning := range out.warnings {
		attrs = append(attrs, slog.String("warning", shorten(warning, maxLoggedText)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	h.Logger.LogAttrs(r.Context(), slog.LevelInfo, "policy reviewed", attrs...)
}

func unchecked(cause string) verdict {
	return verdict{decision: policyUnchecked, warnings: []string{"the policy was not checked: " + cause}}
}

// judge checks the ConfigMap. After a panic it returns that the policy was not checked.
func (h *policyHandler) judge(ctx context.Context, c *configMap) (out verdict) {
	defer func() {
		if p := recover(); p != nil {
			h.Logger.Error("recovered from panic", "error", shorten(fmt.Sprintf("%v\n%s", p, debug.Stack()), maxLoggedError))
			out = unchecked("the webhook failed; see its log")
		}
	}()
	if version, marked := c.Metadata.Annotations[policy.AnnotationVersion]; marked && version != policy.SchemaVersion {
		return unchecked(
			fmt.Sprintf(
				"it has version %q, but this webhook checks version %q; a webhook of the policy's version checks it at its start; to check it "+
					"now, run `ampbridge validate` of that version",
				shorten(version, maxLoggedName),
				policy.SchemaVersion,
			),
		)
	}
	text, there := c.Data[h.key]
	if !there {
		return verdict{decision: policyRefused, problems: []string{
			fmt.Sprintf("the ConfigMap has no key %s: write the policy under this name, which is the file that the webhook reads", h.key),
		}}
	}
	if n := strings.Count(text, "\n") + strings.Count(text, ",") + strings.Count(text, "[") + strings.Count(text, "{"); n > maxParts {
		return unchecked(
			fmt.Sprintf("it has more than %d lines and items, and the webhook checks no more than that; run `ampbridge validate`", maxParts),
		)
	}
	out.decision = policyAccepted
	for _, name := range slices.Sorted(maps.Keys(c.Data)) {
		if name != h.key {
			out.warnings = append(
				out.warnings,
				fmt.Sprintf("the key %s is not read: only %s is the policy", shorten(name, maxLoggedName), h.key),
			)
		}
		if len(out.warnings) == maxProblems {
			break
		}
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case h.judging <- struct{}{}:
		defer func() { <-h.judging }()
	case <-timer.C:
		return unchecked("the webhook is overloaded; apply the policy again later")
	case <-ctx.Done():
		return unchecked("the client closed the connection")
	}
	_, err := policy.Parse([]byte(text))
	if err == nil {
		return out
	}
	mistakes := policy.Errors{{Problem: err.Error()}}
	_ = errors.As(err, &mistakes)
	for i, m := range mistakes {
		if i == maxProblems {
			out.problems = append(out.problems, fmt.Sprintf("and %d more", len(mistakes)-maxProblems))
			break
		}
		m.Path = shorten(m.Path, maxLoggedName)
		out.problems = append(out.problems, h.key+": "+shorten(m.Error(), maxLoggedText))
	}
	out.decision = policyRefused
	return out
}
