package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
)

// Options describe the node on which the pod runs. Only Images is required.
type Options struct {
	// Images are the images on the node. A container with any other image waits with the reason ErrImagePull.
	Images Images
	// HostFiles maps paths in every container to files or directories of this machine, for example a bundle
	// of CA certificates or a hosts file. They are mounted read-only.
	HostFiles map[string]string
	// APIServer is the URL for KUBERNETES_SERVICE_HOST and _PORT in the containers; if empty, neither is set.
	APIServer string
	// Dir is where the pod's directory is created; if empty, in the system's temporary directory. Close
	// removes it.
	Dir string
	// SyncPeriod is how often changes of ConfigMaps, Secrets and tokens are written to volumes. The zero
	// value means 200 ms; a kubelet takes up to 90 s.
	SyncPeriod time.Duration
	// RestartBackoff is the delay before a container's restart. The zero value means 500 ms; a kubelet takes
	// 10 s to 5 min.
	RestartBackoff time.Duration
	// MaxGrace limits the pod's terminationGracePeriodSeconds. The zero value means 10 s.
	MaxGrace time.Duration
	// Log gets the output of containers and the kubelet's own messages, in lines with the container's name.
	// It may be nil.
	Log io.Writer
}

// A Pod is one run of a pod. Its methods may be called from any goroutine.
type Pod struct {
	opts    Options
	log     *log.Logger
	client  kubernetes.Interface
	spec    *corev1.Pod                // as given to Run
	latest  atomic.Pointer[corev1.Pod] // as last read from the API server
	dir     string
	objects *objects
	tokens  *tokens
	volumes map[string]*volume

	containers []*Container // first those of initContainers, in the pod's order
	byName     map[string]*Container

	stop       context.CancelFunc // starts the termination
	background context.CancelFunc // ends what runs longer than the containers: watches, volumes, status
	done       chan struct{}      // no container runs any more
	closed     chan struct{}      // everything has ended
	closing    sync.Once
	closeErr   error

	following sync.Mutex
	reported  *corev1.PodStatus // the status in the API server

	mu       sync.Mutex
	initDone time.Time
	finished bool
	failed   bool
	message  string // the reason why no container can start yet
}

// Run starts the pod, which must exist in the client's API server, and returns at once. An error means that
// the pod cannot run here. The end of ctx terminates the pod as [Pod.Close] does. Close must be called in any
// case.
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
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	dir, err := os.MkdirTemp(opts.Dir, "kubelet-")
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	// Not canceled with ctx, because volumes are updated while the pod terminates.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &Pod{
		opts: opts, log: log.New(opts.Log, "", 0), client: client, spec: pod.DeepCopy(), dir: dir,
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

// build creates the pod's directory and its containers.
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

// Container returns the container with that name; nil if the pod has none.
func (p *Pod) Container(name string) *Container { return p.byName[name] }

// VolumeDir returns the directory on this machine with the volume's content; "" if the pod has no such
// volume.
func (p *Pod) VolumeDir(name string) string {
	if v := p.volumes[name]; v != nil {
		return v.dir
	}
	return ""
}

// InitDone returns when the last init container ended, or, for a sidecar, started. Before that it returns
// zero.
func (p *Pod) InitDone() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.initDone
}

// Ready reports whether the pod is initialised and all its containers, including sidecars, are ready.
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

// Done returns a channel that is closed when the last container has ended for good and the API server has its
// status.
func (p *Pod) Done() <-chan struct{} { return p.done }

// Eventually waits until condition holds. If ctx or the pod ends first, it returns an error that names what
// it waited for, with the state and the last output of all containers.
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

// Close terminates the pod, like the deletion of a pod, and removes its directory. It returns when no process
// is left, and may be called more than once.
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

// removeAll also removes directories that containers have made unwritable.
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

// object returns the pod as last read from the API server, because labels and annotations can change.
func (p *Pod) object() *corev1.Pod { return p.latest.Load() }

func (p *Pod) nodeName() string {
	if n := p.spec.Spec.NodeName; n != "" {
		return n
	}
	return "kubelet" // no scheduler has assigned this pod
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

// grace returns the pod's grace period, limited by the options.
func (p *Pod) grace() time.Duration {
	grace := 30 * time.Second // the API's default
	if s := p.spec.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	return min(grace, p.opts.MaxGrace)
}

func (p *Pod) logf(format string, args ...any) {
	p.log.Printf("kubelet: "+format, args...)
}
