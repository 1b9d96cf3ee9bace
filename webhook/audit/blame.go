package audit

import (
	"regexp"
	"strings"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// refuser is the component that refused a pod, found by the text of the refusal.
type refuser struct {
	pattern *regexp.Regexp
	// name is the prefix for the text of the pattern's group.
	name string
}

// quotaName is the prefix of a refuser's name if it is a quota.
const quotaName = "ResourceQuota "

func isQuota(by string) bool { return strings.HasPrefix(by, quotaName) }

// refusers are tried in this order. Policy engines are webhooks, and the text says which of their
// rules it was.
var refusers = []refuser{
	{regexp.MustCompile(`ValidatingAdmissionPolicy '([^']+)'`), "ValidatingAdmissionPolicy "},
	{regexp.MustCompile(`admission webhook "([^"]+)" denied the request`), "webhook "},
	{regexp.MustCompile(`violates PodSecurity "([^"]+)"`), "PodSecurity "},
	{regexp.MustCompile(`unable to validate against any (security context constraint)`), "OpenShift's "},
	{regexp.MustCompile(`(?:exceeded|failed) quota: ([^,:]+)`), quotaName},
	{regexp.MustCompile(`(?:maximum|minimum) \S+ usage per (Pod|Container)|max limit to request ratio per (Pod|Container)`),
		"LimitRange for each "},
	{regexp.MustCompile(` is invalid: `), "the API server's validation"},
	{regexp.MustCompile(` is forbidden: `), "an admission plugin"},
}

// unrelated are parts of refusals that a pod's containers and volumes cannot
// cause. Refusals because of a webhook that does not answer are among them.
var unrelated = []string{
	"error looking up service account", "failed calling webhook", "is being terminated", "no PriorityClass with name", "RuntimeClass ",
	"exceeded its backoff",
}

// Blame returns the component that refused a pod, and its text, from the message of an event
// FailedCreate. plausible reports whether the sidecar can be the cause. The sidecar is not the
// cause if no pod was refused, as after a timeout, or if the text names something else.
func Blame(message string) (by, text string, plausible bool) {
	for _, words := range unrelated {
		if strings.Contains(message, words) {
			return "", "", false
		}
	}
	for _, r := range refusers {
		at := r.pattern.FindStringSubmatchIndex(message)
		if at == nil {
			continue
		}
		by = r.name + shorten(strings.Join(r.pattern.FindStringSubmatch(message)[1:], ""), 60)
		text = message[at[0]:]
		if _, rest, found := strings.Cut(text, "denied the request: "); found {
			text = rest
		} else if _, rest, found := strings.Cut(text, "denied request: "); found {
			text = rest
		} else if _, rest, found := strings.Cut(text, ": "); found && !isQuota(r.name) {
			text = rest
		}
		// Pod security names each container and volume that violates it.
		if r.name == "PodSecurity " && !strings.Contains(text, sidecarconfig.ContainerName) && !strings.Contains(text, "ampbridge-") {
			return "", "", false
		}
		return by, shorten(text, 240), true
	}
	return "", "", false
}
