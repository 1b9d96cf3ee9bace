package kubelet

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// minGrace is how long a sidecar has to end if the containers before it have used the pod's whole grace
// period, as in the kubelet.
const minGrace = 2 * time.Second

// lastReport limits how long the end of a pod waits for an API server that no longer answers.
const lastReport = 2 * time.Second

// run runs the pod from the creation of its volumes to the end of its last container. In parallel it updates
// volumes and status until background ends.
func (p *Pod) run(running, background context.Context) {
	defer close(p.closed)
	var care sync.WaitGroup
	defer care.Wait()
	if p.mountVolumes(running) {
		care.Go(func() { p.keepVolumes(background) })
	}
	care.Go(func() { every(background, p.opts.SyncPeriod, func() { p.follow(background) }) })

	if p.initialise(running) {
		p.mu.Lock()
		p.initDone = time.Now()
		p.mu.Unlock()
		for _, c := range p.containers {
			if c.kind == ordinary {
				c.launch(background)
			}
		}
		for _, c := range p.containers {
			if c.kind == ordinary {
				select {
				case <-c.done:
				case <-running.Done():
				}
			}
		}
	}
	p.terminate()
	p.mu.Lock()
	p.finished = true
	p.mu.Unlock()
	last, cancel := context.WithTimeout(background, lastReport)
	defer cancel()
	p.follow(last)
	close(p.done)
}

// mountVolumes fills all volumes before any container starts. It retries until it succeeds or the pod is
// stopped.
func (p *Pod) mountVolumes(ctx context.Context) bool {
	for {
		message := ""
		err := p.syncVolumes(ctx)
		if err != nil {
			message = err.Error()
		}
		p.mu.Lock()
		changed := p.message != message
		p.message = message
		p.mu.Unlock()
		if err == nil {
			return true
		}
		if changed {
			p.logf("no container can start yet: %v", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(p.opts.SyncPeriod):
		}
	}
}

func (p *Pod) syncVolumes(ctx context.Context) error {
	for _, spec := range p.spec.Spec.Volumes {
		if err := p.volumes[spec.Name].sync(ctx); err != nil {
			return err
		}
	}
	return nil
}

// keepVolumes writes changes of ConfigMaps, Secrets, tokens, labels and annotations to the volumes.
func (p *Pod) keepVolumes(ctx context.Context) {
	said := map[string]string{} // by volume
	every(ctx, p.opts.SyncPeriod, func() {
		for name, v := range p.volumes {
			err := v.sync(ctx)
			if err == nil {
				delete(said, name)
			} else if ctx.Err() == nil && said[name] != err.Error() {
				said[name] = err.Error()
				p.logf("%v: its content stays unchanged", err)
			}
		}
	})
}

// every calls f in each period until ctx ends.
func every(ctx context.Context, period time.Duration, f func()) {
	_ = wait.PollUntilContextCancel(ctx, period, false, func(context.Context) (done bool, err error) {
		f()
		return false, nil
	})
}

// initialise runs the init containers in order and reports whether the ordinary containers may start. After a
// sidecar the next container starts when the sidecar's startup probe has succeeded, or, without one, when the
// sidecar runs.
func (p *Pod) initialise(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	for _, c := range p.containers {
		switch c.kind {
		case initial:
			c.launch(ctx)
			select {
			case <-c.done:
			case <-ctx.Done():
				return false
			}
			if t := c.Status().State.Terminated; t == nil || t.ExitCode != 0 {
				p.mu.Lock()
				p.failed = true
				p.mu.Unlock()
				return false
			}
		case sidecar:
			c.launch(context.WithoutCancel(ctx))
			for started := false; !started; {
				select {
				case <-ctx.Done():
					return false
				case <-time.After(10 * time.Millisecond):
					started = *c.Status().Started
				}
			}
		}
	}
	return true
}

// terminate ends the running containers: ordinary and initial ones in parallel, then the sidecars in reverse
// order.
func (p *Pod) terminate() {
	deadline := time.Now().Add(p.grace())
	var all sync.WaitGroup
	for _, c := range p.containers {
		if c.kind != sidecar {
			all.Go(func() { c.stop(time.Until(deadline)) })
		}
	}
	all.Wait()
	for i := range p.containers {
		if c := p.containers[len(p.containers)-1-i]; c.kind == sidecar {
			c.stop(max(time.Until(deadline), min(minGrace, p.opts.MaxGrace)))
		}
	}
}

// follow watches the pod's object and stops the pod if it is deleted. It writes changes of the pod's status
// to the API server. If nothing of a deleted pod runs any more, it removes the object.
func (p *Pod) follow(ctx context.Context) {
	p.following.Lock()
	defer p.following.Unlock()
	pod, err := p.objects.pod(ctx, p.spec.Name)
	switch {
	case apierrors.IsNotFound(err) || err == nil && pod.UID != p.spec.UID:
		p.stop()
		return
	case err != nil:
		return
	}
	p.latest.Store(pod)
	if pod.DeletionTimestamp != nil {
		p.stop()
	}
	if status := p.Status(); p.reported == nil || !equality.Semantic.DeepEqual(*p.reported, status) {
		if err := p.report(ctx, status); err != nil {
			if ctx.Err() == nil {
				p.logf("the pod's status could not be reported: %v", err)
			}
			return
		}
		p.reported = &status
	}
	if pod.DeletionTimestamp != nil && (p.Phase() == corev1.PodSucceeded || p.Phase() == corev1.PodFailed) {
		err := p.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
		})
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			p.logf("the deleted pod could not be removed: %v", err)
		}
	}
}
