package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

// Limits for the refusals that are kept, and for the work of one pass. Namespaces
// take turns, so that the refusals of one do not delay those of another.
const (
	refusalsPerNamespace = 64
	maxRefusals          = 4096
	judgedPerNamespace   = 5
	judgedPerPass        = 50
)

const (
	// refusalLife is how long a refusal counts. Controllers try again after at most
	// 1000 s, so it is a little longer.
	refusalLife = 20 * time.Minute
	// refusalFresh is how long a refusal counts even if the controller's status contradicts it,
	// because the status is written later.
	refusalFresh = 30 * time.Second
	// trialMargin allows for differences between clocks and for rounding to seconds. An attempt that
	// began before the breaker was open proves nothing about pods without the sidecar.
	trialMargin = 3 * time.Second
	// heldFor is how long a workload is ignored if its pods are refused without the
	// sidecar too.
	heldFor = time.Hour
)

// refusals opens the breaker for controllers if their injected pods are refused. It finds
// them by the events FailedCreate that controllers write, so it creates nothing.
// It watches these events, because controllers first try again after
// milliseconds, and then after twice as long each time.
//
// Later attempts show whether the sidecar is the cause: if pods are refused without it
// too, the entry is removed, and the workload is ignored for an hour.
type refusals struct {
	Options
	cluster cluster
	events  eventRecorder
	wake    chan struct{}

	mu   sync.Mutex
	seen map[string]map[types.UID]*refusal // by namespace and controller
	n    int

	// trials are the workloads with an open breaker, and held the workloads that are
	// ignored. Only work uses them.
	trials map[breaker.Workload]trial
	held   map[breaker.Workload]hold
}

// refusal is the last refusal of a controller's pod.
type refusal struct {
	observed
	by, text string
	// last is the time by the controller's clock, and noted by this process's clock.
	last, noted time.Time
	// judged is true if nothing is left to do about the refusal.
	judged bool
}

// trial is the refusal for which the breaker opened, with the time until it opened.
type trial struct {
	last, noted time.Time
	took        time.Duration
}

type hold struct {
	by    string
	until time.Time
}

func newRefusals(o Options, config *rest.Config) (*refusals, error) {
	client, err := connect(config)
	return &refusals{
		Options: o, cluster: client, events: eventRecorder{client: client, instance: o.Instance}, wake: make(chan struct{}, 1),
		seen: map[string]map[types.UID]*refusal{}, trials: map[breaker.Workload]trial{}, held: map[breaker.Workload]hold{},
	}, err
}

// watch watches the events until the context ends.
func (r *refusals) watch(ctx context.Context) {
	const first, last = time.Second, time.Minute
	version, pause, told := "", first, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := r.follow(ctx, &version)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			version = ""
			if text := shorten(err.Error(), 1000); text != told {
				told = text
				r.Logger.Error("cannot watch the events of refused pods", "error", text)
			}
		}
		if time.Since(began) > last {
			pause, told = first, ""
		}
		sleep(ctx, pause)
		pause = min(2*pause, last)
	}
}

// follow watches until the API server ends the watch. It does not list events: a watch holds
// one at a time, which limits memory, and without a version it begins with the existing ones.
func (r *refusals) follow(ctx context.Context, version *string) error {
	w, err := r.cluster.Events(metav1.NamespaceAll).Watch(ctx, metav1.ListOptions{
		FieldSelector: "reason=FailedCreate", ResourceVersion: *version, AllowWatchBookmarks: true,
	})
	if err != nil {
		return fmt.Errorf("watch events: %w", err)
	}
	defer w.Stop()
	for got := range w.ResultChan() {
		switch event, ok := got.Object.(*corev1.Event); {
		case got.Type == watch.Error:
			return fmt.Errorf("watch events: %w", apierrors.FromObject(got.Object))
		case ok && got.Type == watch.Bookmark:
			*version = event.ResourceVersion
		case ok && got.Type != watch.Deleted:
			*version = event.ResourceVersion
			r.note(event, time.Now())
		}
	}
	return nil
}

// note records a refusal from an event, if the sidecar can be the cause.
func (r *refusals) note(e *corev1.Event, now time.Time) {
	object, last := e.InvolvedObject, occurred(e)
	by, text, plausible := Blame(e.Message)
	if !plausible || object.Namespace != e.Namespace || object.Namespace == r.Namespace || slices.Contains(r.Excluded, object.Namespace) ||
		object.UID == "" || now.Sub(last) > refusalLife {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.seen[object.Namespace]
	if of == nil {
		of = map[types.UID]*refusal{}
		r.seen[object.Namespace] = of
	}
	before := of[object.UID]
	switch {
	case before != nil && !last.After(before.last) && before.by == by:
		return
	case before == nil && (len(of) >= refusalsPerNamespace || r.n >= maxRefusals):
		return // its controller tries again, and the limit may have space then
	case before == nil:
		r.n++
	}
	of[object.UID] = &refusal{
		observed: observed{
			workload: breaker.Workload{Namespace: object.Namespace},
			controller: &metav1.OwnerReference{
				APIVersion: shorten(object.APIVersion, 300), Kind: shorten(object.Kind, 100), Name: shorten(object.Name, 300), UID: object.UID,
			},
		},
		by: by, text: text, last: last, noted: now,
	}
	r.trigger()
}

// occurred returns when an event last happened. The two event APIs use different fields.
func occurred(e *corev1.Event) time.Time {
	at := e.LastTimestamp.Time
	if e.Series != nil && e.Series.LastObservedTime.After(at) {
		at = e.Series.LastObservedTime.Time
	}
	if e.EventTime.After(at) {
		at = e.EventTime.Time
	}
	return at
}

func (r *refusals) trigger() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// work judges refusals until the context ends.
func (r *refusals) work(ctx context.Context) {
	const least, afterError = 50 * time.Millisecond, 2 * time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		pause := least
		if err := r.pass(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.Logger.Error("cannot judge refused pods, will try again", "error", shorten(err.Error(), 2000))
			pause = afterError
			r.trigger()
		}
		sleep(ctx, pause)
	}
}

// next returns the refusals for this pass, and removes old ones.
func (r *refusals) next(now time.Time) []*refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	var open []*observed
	of := map[*observed]*refusal{}
	for namespace, all := range r.seen {
		for uid, f := range all {
			if now.Sub(f.noted) > refusalLife {
				delete(all, uid)
				r.n--
			} else if !f.judged {
				open = append(open, &f.observed)
				of[&f.observed] = f
			}
		}
		if len(all) == 0 {
			delete(r.seen, namespace)
		}
	}
	slices.SortFunc(open, func(a, b *observed) int { return of[a].noted.Compare(of[b].noted) })
	var picked []*refusal
	for _, o := range inTurns(open, judgedPerNamespace, judgedPerPass) {
		of[o].judged = true
		picked = append(picked, of[o])
	}
	if len(picked) < len(open) {
		r.trigger()
	}
	return picked
}

// pass judges refusals and changes the breaker. An error about one does not stop the others;
// it is judged again.
func (r *refusals) pass(ctx context.Context, now time.Time) error {
	p := r.Policy()
	picked := r.next(now)
	if p == nil {
		r.again(picked) // after the next event they are judged
	}
	if p == nil || len(picked) == 0 {
		return nil
	}
	r.forget(now)
	configMaps := r.cluster.ConfigMaps(r.Namespace)
	state, err := store.Read(ctx, configMaps)
	if err != nil {
		r.again(picked)
		return err
	}
	var errs []error
	var opening, vain []*refusal
	var entries, gone []breaker.Entry
	caches := map[string]*namespaceLook{}
	for _, f := range picked {
		look := caches[f.workload.Namespace]
		if look == nil {
			look = &namespaceLook{cache: namespaceCache{accounts: map[string]map[string]string{}, absent: true}}
			caches[f.workload.Namespace] = look
		}
		found, err := r.judge(ctx, f, look, Question{Policy: p, Image: r.Image, Breaker: state}, now)
		switch {
		case err != nil:
			errs = append(errs, err)
			r.again([]*refusal{f})
		case found.Kind == Missed && !r.holds(f):
			f.Finding = found
			opening = append(opening, f)
			entries = append(entries, breaker.Entry{
				Workload: f.workload, Revision: found.Revision, Cause: causeOf(f.by), By: f.by, Message: f.text, Since: now.UTC().Truncate(time.Second),
			})
		case found.Reason == breaker.CircuitOpen:
			entry, _ := state.Open(f.workload, found.Revision)
			if entry.WasRefused() && entry.Workload == f.workload && r.refusedWithout(f) {
				vain, gone = append(vain, f), append(gone, entry)
			}
		}
	}
	if len(entries)+len(gone) == 0 {
		return errors.Join(errs...)
	}
	err = retry.RetryOnConflict(conflictBackoff, func() (err error) {
		state, err = store.Change(ctx, configMaps, func(s breaker.State) breaker.State {
			for _, e := range gone {
				s = s.Remove(e)
			}
			return s.With(entries...)
		})
		return err
	})
	if err != nil {
		r.again(opening)
		r.again(vain)
		return errors.Join(append(errs, err)...)
	}
	for _, f := range opening {
		if _, open := state.Open(f.workload, f.Revision); !open {
			errs = append(errs, fmt.Errorf("ConfigMap %s is full: injection does not pause for %s of namespace %s, "+
				"although its pods are refused",
				breaker.ConfigMap, shorten(f.workload.String(), 200), f.workload.Namespace))
			continue
		}
		r.trials[f.workload] = trial{f.last, f.noted, time.Since(f.noted)}
		errs = append(errs, r.announce(ctx, f))
	}
	for _, f := range vain {
		delete(r.trials, f.workload)
		r.held[f.workload] = hold{f.by, now.Add(heldFor)}
		errs = append(errs, r.events.record(ctx, &f.observed, corev1.EventTypeWarning, eventClosed, fmt.Sprintf(
			"its pods are refused without the sidecar too, by %s: %s. Injection of %s continues", f.by, f.text, f.workload)))
	}
	return errors.Join(errs...)
}

// again makes the next pass judge the refusals again.
func (r *refusals) again(list []*refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range list {
		f.judged = false
	}
}

// namespaceLook holds what a pass has read in a namespace.
type namespaceLook struct {
	read      bool
	injection policy.Injection
	cache     namespaceCache
}

// judge returns the finding about the pods that the controller tries to create. It is Missed
// if they would be injected, because then they are refused with the sidecar.
func (r *refusals) judge(ctx context.Context, f *refusal, look *namespaceLook, q Question, now time.Time) (Finding, error) {
	namespace := f.workload.Namespace
	if !look.read {
		object, err := r.cluster.Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return Finding{}, fmt.Errorf("read namespace %s: %w", namespace, err)
		}
		look.read = true
		if err == nil && object.DeletionTimestamp.IsZero() {
			look.injection = policy.Injection(object.Labels[policy.LabelInjection])
		}
	}
	if look.injection != policy.InjectionEnabled && look.injection != policy.InjectionAnnotated {
		return Finding{}, nil
	}
	owner, err := r.cluster.controlled(ctx, namespace, *f.controller)
	var unknown unknownKindError
	if apierrors.IsNotFound(err) || errors.As(err, &unknown) {
		return Finding{}, nil
	} else if err != nil {
		return Finding{}, fmt.Errorf("read %s %s of namespace %s: %w", f.controller.Kind, f.controller.Name, namespace, err)
	}
	if owner.uid != f.controller.UID || (owner.complete && now.Sub(f.last) > refusalFresh) {
		return Finding{}, nil // another object has the name now, or the controller has its pods
	}
	pod, err := seen(owner.pod(namespace, ""))
	if err != nil {
		return Finding{}, fmt.Errorf("read the template of %s %s of namespace %s: %w", f.controller.Kind, f.controller.Name, namespace, err)
	}
	f.workload = pod.workload()
	q.Pod, q.Injection = pod, look.injection
	return r.cluster.assess(ctx, q, &look.cache)
}

// holds reports whether the workload is ignored, because the same component refused its
// pods without the sidecar too.
func (r *refusals) holds(f *refusal) bool {
	h, held := r.held[f.workload]
	return held && h.by == f.by
}

// forget removes old entries. A trial ends when its workload must have tried again.
func (r *refusals) forget(now time.Time) {
	maps.DeleteFunc(r.held, func(_ breaker.Workload, h hold) bool { return now.After(h.until) })
	maps.DeleteFunc(r.trials, func(_ breaker.Workload, t trial) bool { return now.Sub(t.noted) > heldFor })
}

// refusedWithout reports whether the refused pod had no sidecar.
func (r *refusals) refusedWithout(f *refusal) bool {
	t, known := r.trials[f.workload]
	if !known {
		r.trials[f.workload] = trial{last: f.last, noted: f.noted} // an earlier process opened the breaker
		return false
	}
	return f.last.After(t.last.Add(t.took + trialMargin))
}

func (r *refusals) announce(ctx context.Context, f *refusal) error {
	r.Logger.Warn("circuit breaker opens", "namespace", f.workload.Namespace, "workload", shorten(f.workload.String(), 200),
		"cause", causeOf(f.by), "by", f.by, "message", f.text)
	until := "the policy or the sidecar's image changes"
	if causeOf(f.by) == breaker.OverQuota {
		until += ", for at most an hour"
	}
	return r.events.record(ctx, &f.observed, corev1.EventTypeWarning, eventOpen, fmt.Sprintf(
		"its pods are refused with the sidecar, by %s: %s. Injection pauses for %s until %s: the next pod is created "+
			"without the sidecar. The cluster admin adapts the sidecar (sidecar.resources, .volumeSizeLimit, .securityContext "+
			"and .image of ampbridge's policy), or exempts the container %s", f.by, f.text, f.workload, until, sidecarconfig.ContainerName))
}

func causeOf(by string) string {
	if isQuota(by) {
		return breaker.OverQuota
	}
	return breaker.Refused
}

// sleep returns after d, or earlier if the context ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
