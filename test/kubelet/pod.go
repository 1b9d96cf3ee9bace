package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
)

// Options say on what node the pod runs. Only Images is required.
type Options struct {
	// Images are the images that the node has; a container of any other waits with the reason ErrImagePull.
	Images Images
	// HostFiles maps paths in every container to files or directories of this machine, mounted read-only: a bundle of
	// CA certificates, a hosts file.
	HostFiles map[string]string
	// APIServer is the URL that KUBERNETES_SERVICE_HOST and _PORT tell the containers; "" sets neither.
	APIServer string
	// Dir is where the pod's directory is made; the system's temporary directory when empty. Close removes it.
	Dir string
	// SyncPeriod is how often changed ConfigMaps, Secrets and tokens reach volumes: 200 ms when zero (a kubelet's: up to
	// 90 s).
	SyncPeriod time.Duration
	// RestartBackoff is the time before a container's restart: 500 ms when zero (a kubelet's: 10 s to 5 min).
	RestartBackoff time.Duration
	// MaxGrace bounds the pod's terminationGracePeriodSeconds: 10 s when zero.
	MaxGrace time.Duration
	// Log takes what containers write, and the kubelet's own remarks, in lines marked with the container's name. May be nil.
	Log io.Writer
}

// A Pod is one run of a pod. Its methods may be called from any goroutine.
type Pod struct {
	opts    Options
	client  kubernetes.Interface
	spec    *corev1.Pod                // as given to Run
	latest  atomic.Pointer[corev1.Pod] // as last seen in the API server
	dir     string
	objects *objects
	tokens  *tokens
	volumes map[string]*volume

	containers []*Container // those of initContainers first, in the pod's order
	byName     map[string]*Container

	stop       context.CancelFunc // begins the termination
	background context.CancelFunc // ends what outlives it: watches, volumes, status
	done       chan struct{}      // no container runs any more
	closed     chan struct{}      // nothing at all
	closing    sync.Once
	closeErr   error

	following sync.Mutex
	reported  *corev1.PodStatus // what the API server has

	mu       sync.Mutex
	initDone time.Time
	finished bool
	failed   bool
	message  string // what the pod waits for, before any container can start
}

// Run starts the pod, which must exist in the client's API server, and returns at once: an error means that the pod
// cannot be run here at all. The end of ctx terminates it as [Pod.Close] does; Close has to be called in any case.
func Run(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod, opts Options) (*Pod, error) {
	if !initCalled.Load() {
		return nil, errors.New(
			"kubelet.Init was not called: call it first in main or TestMain, containers start by re-executing this program",
		)
	}
	if err := unsupported(pod); err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	setDefault(&opts.SyncPeriod, 200*time.Millisecond)
	setDefault(&opts.RestartBackoff, 500*time.Millisecond)
	setDefault(&opts.MaxGrace, 10*time.Second)
	if opts.Log != nil {
		opts.Log = &syncWriter{w: opts.Log}
	}
	dir, err := os.MkdirTemp(opts.Dir, "kubelet-")
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	// Without ctx's end: volumes are kept up to date while the pod terminates.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &Pod{
		opts: opts, client: client, spec: pod.DeepCopy(), dir: dir,
		objects: &objects{client: client, namespace: pod.Namespace, ctx: background, known: map[string]*watched{}},
		tokens:  &tokens{client: client, pod: pod, held: map[string]heldToken{}},
		volumes: map[string]*volume{}, byName: map[string]*Container{},
		stop: stop, background: cancel, done: make(chan struct{}), closed: make(chan struct{}),
	}
	p.latest.Store(p.spec)
	if err := p.build(); err != nil {
		stop()
		cancel()
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go p.run(running, background)
	return p, nil
}

func setDefault(d *time.Duration, fallback time.Duration) {
	if *d == 0 {
		*d = fallback
	}
}

// build makes the pod's directory and its containers.
func (p *Pod) build() error {
	for i := range p.spec.Spec.InitContainers {
		spec, k := &p.spec.Spec.InitContainers[i], initial
		if spec.RestartPolicy != nil {
			k = sidecar
		}
		p.containers = append(p.containers, newContainer(p, spec, k))
	}
	for i := range p.spec.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, &p.spec.Spec.Containers[i], ordinary))
	}
	for _, c := range p.containers {
		p.byName[c.spec.Name] = c
	}
	for _, v := range p.spec.Spec.Volumes {
		if err := p.addVolume(v); err != nil {
			return err
		}
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var b strings.Builder
	b.Write(hosts)
	for _, alias := range p.spec.Spec.HostAliases {
		fmt.Fprintf(&b, "\n%s\t%s", alias.IP, strings.Join(alias.Hostnames, "\t"))
	}
	b.WriteByte('\n')
	return os.WriteFile(filepath.Join(p.dir, "hosts"), []byte(b.String()), 0o644)
}

// Container returns the container of that name, and nil where the pod has none.
func (p *Pod) Container(name string) *Container { return p.byName[name] }

// VolumeDir is the directory on this machine that holds the volume, "" where the pod has none of that name.
func (p *Pod) VolumeDir(name string) string {
	if v := p.volumes[name]; v != nil {
		return v.dir
	}
	return ""
}

// InitDone is when the last init container was done (or, for a sidecar, started), and zero before.
func (p *Pod) InitDone() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.initDone
}

// Ready reports whether the pod is initialised and all its containers, sidecars included, are ready.
func (p *Pod) Ready() bool {
	if p.InitDone().IsZero() {
		return false
	}
	for _, c := range p.containers {
		if c.kind != initial && !c.Ready() {
			return false
		}
	}
	return true
}

// Done is closed when the last container has ended for good and the API server was told so.
func (p *Pod) Done() <-chan struct{} { return p.done }

// Eventually waits until condition holds. When ctx ends first, or the pod, it returns an error that says what was awaited,
// and shows every container's state and last lines of output.
func (p *Pod) Eventually(ctx context.Context, what string, condition func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w\n%s", what, ctx.Err(), p.Describe())
		case <-p.done:
			if condition() {
				return nil
			}
			return fmt.Errorf("waiting for %s: the pod has ended\n%s", what, p.Describe())
		case <-tick.C:
		}
	}
	return nil
}

// Close terminates the pod, as the deletion of a pod does, and removes its directory. It returns when no process is
// left, and may be called more than once.
func (p *Pod) Close() error {
	p.closing.Do(func() {
		p.stop()
		<-p.done
		p.background()
		<-p.closed
		p.objects.watches.Wait()
		p.closeErr = removeAll(p.dir)
	})
	return p.closeErr
}

// removeAll also removes what containers left unwritable.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
	return os.RemoveAll(dir)
}

// object is the pod as last seen in the API server: labels and annotations change.
func (p *Pod) object() *corev1.Pod { return p.latest.Load() }

func (p *Pod) nodeName() string {
	if n := p.spec.Spec.NodeName; n != "" {
		return n
	}
	return "kubelet" // no scheduler saw this pod
}

func (p *Pod) hostname() string {
	name := p.spec.Spec.Hostname
	if p.spec.Spec.HostNetwork {
		if host, err := os.Hostname(); err == nil {
			return host
		}
	}
	if name == "" {
		name = p.spec.Name
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

// grace is the pod's, within the bounds of the options.
func (p *Pod) grace() time.Duration {
	grace := 30 * time.Second // the API's default
	if s := p.spec.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	return min(grace, p.opts.MaxGrace)
}

func (p *Pod) logf(format string, args ...any) {
	if p.opts.Log != nil {
		_, _ = fmt.Fprintf(p.opts.Log, "kubelet: "+format+"\n", args...)
	}
}
