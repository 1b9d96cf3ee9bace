package policyfile

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

const (
	// interval is how often the policy file is read. The watcher compares contents, not
	// names or times: the kubelet swaps symbolic links, and editors save in many ways.
	interval = time.Second
	// firstRetry is the pause after the store failed. It doubles up to lastRetry.
	firstRetry, lastRetry = time.Second, time.Minute
)

// Store keeps a copy of the last good version of the policy file, so that the policy
// survives a restart of every process.
type Store interface {
	// Load returns the copy and the [policy.SchemaVersion] of the program that saved it.
	Load(context.Context) (data []byte, version string, err error)
	// Save replaces the copy. It writes nothing if the copy is the same already.
	Save(ctx context.Context, data []byte) error
	// String returns the place of the copy, for errors.
	String() string
}

// Options configures a watcher. Its functions are called one at a time, and may
// call the watcher's methods [Watcher.Current] and [Watcher.Err]. A nil function is not called.
type Options struct {
	Path string
	// Store has the accepted copy; nil if there is none.
	Store Store
	// Loaded is called after a version of the file came into force.
	Loaded func(p *policy.Policy, data []byte)
	// Refused is called after a version of the file was refused. inForce is true if an earlier
	// policy stays in force.
	Refused func(err error, inForce bool)
	// Restored is called after the store's copy came into force.
	Restored func(p *policy.Policy, data []byte, version string)
	// StoreFailed is called once for each error of the store that differs from the last.
	StoreFailed func(err error)
}

// Watcher holds the policy of a file and follows the file's changes. A version with
// mistakes does not replace the policy in force.
type Watcher struct {
	options Options
	// changing is held while the policy in force changes and while the functions are
	// called, so that they see the changes in order.
	changing sync.Mutex
	// seen identifies the content, or the error, of the last read.
	seen string

	mu      sync.RWMutex
	current *policy.Policy
	err     error // why the newest version is not in force
	// good is the newest good version of the file; nil if there was none.
	good []byte
	// loaded wakes Persist after a new version came into force.
	loaded chan struct{}
}

// Watch reads the file for the first time. It returns no error: without a good policy
// [Watcher.Err] returns the reason, and a later version may be good.
func Watch(o Options) *Watcher {
	w := &Watcher{options: o, loaded: make(chan struct{}, 1)}
	w.load()
	return w
}

// Current returns the policy in force; nil if no version was good yet.
func (w *Watcher) Current() *policy.Policy {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.current
}

// Err returns why the newest version of the file is not in force; nil if it is in force.
func (w *Watcher) Err() error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.err
}

// Follow loads new versions of the file until the context ends.
func (w *Watcher) Follow(ctx context.Context) {
	tick := time.Tick(interval)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			w.load()
		}
	}
}

// load reads the file. It does nothing if the content has not changed since the last read, so
// that each mistake is reported once and not every second.
func (w *Watcher) load() {
	data, err := os.ReadFile(w.options.Path)
	seen := fmt.Sprintf("%x", sha256.Sum256(data))
	if err != nil {
		seen = err.Error()
	}
	w.changing.Lock()
	defer w.changing.Unlock()
	if seen == w.seen {
		return
	}
	w.seen = seen
	var p *policy.Policy
	if err == nil {
		p, err = policy.Parse(data)
	}
	if err != nil {
		w.refuse(err)
		return
	}
	w.mu.Lock()
	w.current, w.good, w.err = p, data, nil
	w.mu.Unlock()
	select {
	case w.loaded <- struct{}{}:
	default:
	}
	if w.options.Loaded != nil {
		w.options.Loaded(p, data)
	}
}

func (w *Watcher) refuse(err error) {
	w.mu.Lock()
	w.err = err
	inForce := w.current != nil
	w.mu.Unlock()
	if w.options.Refused != nil {
		w.options.Refused(err, inForce)
	}
}

// Restore puts the store's copy in force if no version of the file was good yet. The error
// is why there is still no policy.
func (w *Watcher) Restore(ctx context.Context) error {
	if w.Current() != nil {
		return nil
	}
	data, version, err := w.options.Store.Load(ctx)
	if err != nil {
		return err
	}
	p, err := policy.Parse(data)
	if err != nil {
		return fmt.Errorf("the copy of version %q in %s is not a policy: %w", version, w.options.Store, err)
	}
	w.changing.Lock()
	defer w.changing.Unlock()
	w.mu.Lock()
	if w.current != nil {
		w.mu.Unlock()
		return nil // a version of the file has become good in the meantime
	}
	w.current = p
	w.mu.Unlock()
	if w.options.Restored != nil {
		w.options.Restored(p, data, version)
	}
	return nil
}

// Persist restores the policy from the store while no version of the file was good yet, and
// saves each good version of the file there, until the context ends.
func (w *Watcher) Persist(ctx context.Context) {
	last, pause := "", firstRetry
	for {
		err := w.persist(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			last, pause = "", firstRetry
			select {
			case <-ctx.Done():
			case <-w.loaded:
			}
			continue
		}
		if err.Error() != last && w.options.StoreFailed != nil {
			w.options.StoreFailed(err)
		}
		last = err.Error()
		sleep(ctx, pause)
		pause = min(2*pause, lastRetry)
	}
}

func (w *Watcher) persist(ctx context.Context) error {
	if err := w.Restore(ctx); err != nil {
		return err
	}
	w.mu.RLock()
	good := w.good
	w.mu.RUnlock()
	if good == nil {
		return nil // the policy in force is the copy itself
	}
	return w.options.Store.Save(ctx, good)
}

// sleep returns after d, or earlier if the context ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
