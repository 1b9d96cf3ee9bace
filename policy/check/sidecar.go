package check

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// ObservedSidecar has what doctor observed of a pod's config sidecar.
type ObservedSidecar struct {
	Status sidecarconfig.Status
	// Config is the sidecar config that the webhook wrote.
	Config sidecarconfig.Config
	// CheckConfig is the command that checks Prometheus's configuration, and Restart the one
	// that replaces the pod; empty: not known.
	CheckConfig, Restart Command
}

const (
	// freshFor is how long a relay may be without a session before the check fails. STS needs up
	// to a minute to see a new trust document.
	freshFor = 5 * time.Minute
	// walHours is how long Prometheus keeps samples that it has not sent.
	walHours = 2 * time.Hour
	// refusedLately is how long a refusal of AMP counts.
	refusedLately = 15 * time.Minute
)

// SidecarState judges the status of a config sidecar. With several destinations it returns the
// worst finding.
func SidecarState(s ObservedSidecar, now time.Time) Finding {
	now = cmp.Or(s.Status.Time, now)
	switch {
	case s.Status.Error != "":
		return Failed(Sidecar, About{}, seeLog, "the configuration cannot be mirrored: %s", s.Status.Error)
	case len(s.Status.Destinations) == 0:
		return Skipped(Sidecar, About{}, "it reports no destination")
	}
	worst := s.versions()
	var messages []string
	for _, d := range s.Status.Destinations {
		f := s.destination(d, now)
		if f.Status.Worse(worst.Status) {
			worst = f
		}
		messages = append(messages, f.Message)
	}
	if worst.Status == Pass {
		worst.Message = strings.Join(messages, "; ")
	}
	return worst
}

var seeLog = NewFix("see the sidecar's log (container ampbridge-config); the checks above show how STS answers a fresh token")

// versions judges a sidecar and a webhook of different versions. A pod keeps both until
// it is replaced.
func (s ObservedSidecar) versions() Finding {
	restart := withCommand("restart the workload, and take sidecar.image out of the policy if it is there", s.Restart)
	decided := false
	for _, d := range s.Config.Destinations {
		decided = decided || d.Delivery != ""
	}
	switch {
	case s.Status.Sidecar == "" && decided:
		return Warned(Sidecar, About{}, restart, "the sidecar is older than the webhook that injected it: it knows no relay, so writes fail "+
			"when Prometheus cannot take a new session")
	case s.Status.Sidecar == "":
		return Warned(Sidecar, About{}, restart, "an earlier version injected the pod: its sidecar knows no relay, so writes fail when "+
			"Prometheus cannot take a new session")
	case !decided:
		return Warned(Sidecar, About{}, restart,
			"the sidecar (%s) is newer than the webhook that injected it, and that webhook chose no delivery",
			Plain(s.Status.Sidecar))
	}
	return Passed(Sidecar, About{}, "")
}

// UnreadSidecar judges a sidecar without a readable status. image is the sidecar's image, and
// pinned is sidecar.image of the policy.
func UnreadSidecar(err error, config sidecarconfig.Config, image, pinned string, restart Command) Finding {
	if config.Version != sidecarconfig.VersionSigV4 && pinned != "" && pinned == image {
		return Warned(Sidecar, About{}, withCommand("take sidecar.image out of the policy, or name the webhook's version there; then restart "+
			"the workload", restart), "its status cannot be read (%v), and sidecar.image of the policy is %s: if that is older than the "+
			"webhook, the sidecar cannot read its config. It then serves Prometheus's configuration unchanged, and nothing is written", err, pinned)
	}
	return Skipped(Sidecar, About{}, "its status cannot be read: %v", err)
}

// destination judges the state of one destination.
func (s ObservedSidecar) destination(d sidecarconfig.DestinationStatus, now time.Time) Finding {
	relayed := d.Delivery == sidecarconfig.DeliveryRelay || d.Delivery == sidecarconfig.DeliveryMoving
	switch {
	case d.Skipped != "":
		return Warned(
			Sidecar,
			About{},
			NewFix("take the remote_write to this workspace out of Prometheus's own configuration"),
			"%s: Prometheus's own configuration writes to the workspace already, so the block is left out",
			d.Name,
		)
	case d.NotTaken:
		return Failed(Sidecar, About{}, s.fixConfig(),
			"%s: Prometheus has not taken the latest session: it refuses the configuration, even the one "+
				"with the relay. Its writes fail when its present session ends", d.Name)
	case relayed && !d.Valid:
		return withoutSession(d, s.Status.Started, now)
	case !d.Valid:
		return Failed(Sidecar, About{}, seeLog, "%s: there is no valid session%s, so Prometheus runs without the block",
			d.Name, because(d.Error))
	case !d.Served:
		fix := seeLog
		if s.Status.Config.Error != "" {
			fix = s.fixConfig()
		}
		return Failed(Sidecar, About{}, fix, "%s: there is a session, and the block is not served: the configuration cannot be edited%s",
			d.Name, because(s.Status.Config.Error))
	}
	if f := s.refused(d, now); f.Status != Pass {
		return f
	}
	if f := s.reloads(d); f.Status != Pass {
		return f
	}
	message := d.Name + ": session valid, block served"
	if relayed {
		message = d.Name + ": session valid, relay"
	}
	if d.Moved != "" {
		message += fmt.Sprintf(" (moved there from sigv4: %s; the next start of Prometheus decides again)", Plain(d.Moved))
	}
	if gap := d.Gap(now); gap > 0 {
		message += fmt.Sprintf(", %s without the block since the start", Span(gap))
	}
	if len(d.Omitted) == 0 {
		return Passed(Sidecar, About{}, "%s", message)
	}
	omitted := fmt.Sprintf("%s; the block leaves out %s", message, strings.Join(d.Omitted, ", "))
	if s.Config.Prometheus.Version != "" {
		return Warned(Sidecar, About{}, NewFix("upgrade Prometheus, or take these fields out of remoteWrite in the policy"),
			"%s, which Prometheus %s does not know", omitted, s.Config.Prometheus.Version)
	}
	return Warned(Sidecar, About{}, NewFix("say the version: an image tag such as v3.1.0, or the label "+
		"app.kubernetes.io/version on the pod; the two must agree"), "%s, because the version of Prometheus is not known", omitted)
}

// withoutSession judges a relay without a session. It refuses writes, and Prometheus repeats
// them.
func withoutSession(d sidecarconfig.DestinationStatus, started, now time.Time) Finding {
	since := sessionless(d, started)
	f := Failed(Sidecar, About{}, seeLog, "%s: the relay has had no session for %s%s: samples wait in Prometheus's WAL; nothing is lost for "+
		"about two hours", d.Name, Span(now.Sub(since)), because(d.Error))
	switch {
	case now.Sub(since) < freshFor:
		f.Status = Warn
	case now.Sub(since) > walHours:
		f.Message = fmt.Sprintf("%s: the relay has had no session for %s%s: samples are lost that are older than what Prometheus's WAL keeps, "+
			"about two hours", d.Name, Span(now.Sub(since)), because(d.Error))
	}
	return f
}

// sessionless returns the time since which a destination has had no valid session.
func sessionless(d sidecarconfig.DestinationStatus, started time.Time) time.Time {
	if d.Expires.After(started) {
		return d.Expires
	}
	return started
}

// refused judges AMP's latest refusal, if it is recent.
func (s ObservedSidecar) refused(d sidecarconfig.DestinationStatus, now time.Time) Finding {
	if !Recent(d.Relay, now) {
		return Passed(Sidecar, About{}, "")
	}
	a := RefusedRelay(d.Relay)
	if d.Relay.Status == 429 && s.dropsOn429(d.Name) {
		a.Lost = true
	}
	f := Warned(Sidecar, About{}, NewFix(a.Fix), "%s: %s, %s ago; ", d.Name, a.Message, Span(now.Sub(d.Relay.At)))
	switch {
	case !a.Lost:
		f.Message += "Prometheus keeps the samples and sends them again"
	case d.Relay.Status == 400:
		f.Message += "Prometheus does not send these samples again"
	default:
		f.Status = Fail
		f.Message += "Prometheus does not send these samples again"
	}
	return f
}

// Recent reports whether AMP's latest refusal still counts.
func Recent(f sidecarconfig.RelayFailure, now time.Time) bool {
	return !f.At.IsZero() && now.Sub(f.At) <= refusedLately
}

func (s ObservedSidecar) dropsOn429(destination string) bool {
	for _, d := range s.Config.Destinations {
		if d.Name == destination {
			return d.AMP.DropOn429
		}
	}
	return false
}

// Refused explains AMP's refusal of a relayed write.
type Refused struct {
	Message, Fix string
	// Lost is true if Prometheus does not send the samples again. It is false for 429, which
	// Prometheus retries by default.
	Lost bool
}

// RefusedRelay explains AMP's refusal of a relayed write.
func RefusedRelay(f sidecarconfig.RelayFailure) Refused {
	a := Refused{Message: fmt.Sprintf("AMP answered a write with %d %s", f.Status, Plain(f.Error))}
	switch {
	case f.Status == 0:
		a.Message = "AMP could not be reached"
		if f.Error != "" {
			a.Message += " (" + Plain(f.Error) + ")"
		}
		a.Fix = "check destinations[].endpoint, remoteWrite.proxyURL and remoteWrite.caBundle in the policy, and the network from the pod " +
			"to AMP"
	case f.Status == 403 && strings.HasPrefix(f.Error, "ExpiredToken"):
		a.Fix = "check the clock of the node: by AWS's clock the session has ended"
	case f.Status == 403:
		a.Lost = true
		a.Fix = "let the role write: its documents, its permissions boundary, service control policies, the workspace's resource policy and " +
			"the VPC endpoint's policy must all allow aps:RemoteWrite on the workspace"
	case f.Status == 404:
		a.Lost = true
		a.Fix = "copy the workspace's ARN into the policy, as aws amp list-workspaces prints it"
	case f.Status == 413:
		a.Lost = true
		a.Fix = "lower remoteWrite.queueConfig.maxSamplesPerSend in the policy: AMP takes requests of at most 1 MB"
	case f.Status == 429:
		a.Fix = "the workspace's limit of active series or of samples per second is used up: request a higher quota, or drop series with " +
			"remoteWrite.writeRelabelConfigs in the policy"
	case f.Status/100 == 4:
		a.Lost = true
		a.Fix = "see Prometheus's log for AMP's reason. Duplicates or out of order: two Prometheus servers have the same labels (ha in the " +
			"grant, or an external label for each); a few after a restart are normal. HELP texts over 1 KB: metadata: {send: false} in " +
			"remoteWrite. " +
			"UTF-8 names: metric_name_escaping_scheme: underscores"
	default:
		a.Fix = "AMP fails: see the AWS Health Dashboard"
	}
	return a
}

// reloads judges the reloads of Prometheus that the sidecar observed. Only sigv4 needs them.
func (s ObservedSidecar) reloads(d sidecarconfig.DestinationStatus) Finding {
	p := s.Status.Prometheus
	switch {
	case p.ReloadFailed && d.Delivery == sidecarconfig.DeliverySigV4:
		return Warned(Sidecar, About{}, s.fixConfig(), "%s: Prometheus refused the configuration at its last reload, and runs on the one "+
			"before; if that lasts, its samples go through the relay", d.Name)
	case p.ReloadFailed && d.Moved != "":
		return Warned(Sidecar, About{}, s.fixConfig(), "%s: its samples go through the relay (%s), and Prometheus still refuses the "+
			"configuration", d.Name, Plain(d.Moved))
	case p.Error != "" && d.Delivery == sidecarconfig.DeliverySigV4:
		return Warned(Sidecar, About{}, NewFix(`use the relay, which needs no reloads: delivery: relay in the policy, or the annotation `+
			policy.AnnotationDelivery+`: "relay" on the pod`),
			"%s: Prometheus's metrics cannot be read (%s), so it is not known whether it takes "+
				"new sessions", d.Name, Plain(p.Error))
	}
	return Passed(Sidecar, About{}, "")
}

// fixConfig returns the fix for a configuration that Prometheus refuses.
func (s ObservedSidecar) fixConfig() Fix {
	file := cmp.Or(s.Config.File, "the configuration")
	return withCommand("fix "+file+", which Prometheus refuses to load: promtool check config shows where, and so does Prometheus's log",
		s.CheckConfig)
}

func withCommand(summary string, c Command) Fix {
	if len(c) == 0 {
		return NewFix(summary)
	}
	return NewFix(summary, c)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + printable(reason) + ")"
}

// plainLimit is how many bytes of a pod's text are shown.
const plainLimit = 100

// Plain returns the printable ASCII of a text that a pod sent, cut to 100 characters: a
// pod is not trusted.
func Plain(text string) string {
	text = printable(text)
	if len(text) > plainLimit {
		text = text[:plainLimit-3] + "..."
	}
	return text
}

// printable returns the printable ASCII of a text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
}

// News is a state of a pod's sidecar that is worth an event: the event's reason and
// text. The text stays the same for as long as the state does.
type News struct {
	Reason string
	// Warning is true if a person must do something.
	Warning bool
	Text    string
}

// Reasons of [News].
const (
	SessionNotTaken = "SessionNotTaken"
	MovedToRelay    = "MovedToRelay"
	NoSession       = "NoSession"
	WritesRefused   = "WritesRefused"
)

// maxNews bounds the news of one pod, which is not trusted.
const maxNews = 16

// SidecarNews returns the news of a sidecar's status.
func SidecarNews(status sidecarconfig.Status, now time.Time) []News {
	now = cmp.Or(status.Time, now)
	var news []News
	add := func(d sidecarconfig.DestinationStatus, reason string, warning bool, format string, args ...any) {
		if len(news) < maxNews {
			news = append(news, News{reason, warning, Plain(d.Name) + ": " + fmt.Sprintf(format, args...)})
		}
	}
	for _, d := range status.Destinations {
		switch {
		case d.NotTaken:
			add(d, SessionNotTaken, true, "Prometheus has not taken the latest session, because it refuses to load its configuration. When its "+
				"present session ends, its writes fail. Fix the configuration: promtool check config, or ampbridge doctor, shows where")
		case d.Moved != "":
			add(d, MovedToRelay, false, "the samples go through the relay: %s. Nothing is lost; the next start of Prometheus decides again",
				Plain(d.Moved))
		}
		if !d.Valid && now.Sub(sessionless(d, status.Started)) >= freshFor {
			add(d, NoSession, true, "STS gives no session. Prometheus keeps its samples in the WAL for about two hours. The log of container "+
				"ampbridge-config has the reason; ampbridge doctor finds the cause")
		}
		if Recent(d.Relay, now) {
			r := RefusedRelay(d.Relay)
			add(d, WritesRefused, true, "%s; %s", r.Message, r.Fix)
		}
	}
	return news
}
