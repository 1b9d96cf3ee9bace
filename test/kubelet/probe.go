package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// watchHealth runs the probes of one run of the container until ctx ends: first only the startup probe, then
// readiness and liveness in parallel. A failed startup or liveness probe ends the process.
func (c *Container) watchHealth(ctx context.Context, proc *process) *sync.WaitGroup {
	var all sync.WaitGroup
	all.Go(func() {
		started := c.spec.StartupProbe == nil
		if !started {
			c.poll(ctx, c.spec.StartupProbe, func(err error) bool {
				started = err == nil
				if err != nil {
					c.fail(proc, "startup", c.spec.StartupProbe, err)
				}
				return false
			})
		}
		if !started {
			return
		}
		c.mu.Lock()
		c.status.Started = new(true)
		c.status.Ready = c.spec.ReadinessProbe == nil
		c.mu.Unlock()
		if probe := c.spec.ReadinessProbe; probe != nil {
			all.Go(func() {
				c.poll(ctx, probe, func(err error) bool {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.status.Ready = err == nil
					return true
				})
			})
		}
		if probe := c.spec.LivenessProbe; probe != nil {
			c.poll(ctx, probe, func(err error) bool {
				if err != nil {
					c.fail(proc, "liveness", probe, err)
				}
				return err == nil
			})
		}
	})
	return &all
}

// fail ends a process after a failed probe. The restart policy decides what happens next.
func (c *Container) fail(proc *process, which string, probe *corev1.Probe, err error) {
	c.pod.logf("container %s failed its %s probe and is ended: %v", c.spec.Name, which, err)
	grace := c.pod.grace()
	if s := probe.TerminationGracePeriodSeconds; s != nil {
		grace = min(time.Duration(*s)*time.Second, grace)
	}
	proc.terminate(grace)
}

// poll probes in every period until ctx ends or verdict returns false. It calls verdict when enough
// consecutive probes had the same outcome, as the threshold requires; the argument is nil for success.
func (c *Container) poll(ctx context.Context, probe *corev1.Probe, verdict func(error) (goOn bool)) {
	seconds := func(n, fallback int32) time.Duration {
		if n == 0 {
			n = fallback
		}
		return time.Duration(n) * time.Second
	}
	delay := time.Duration(probe.InitialDelaySeconds) * time.Second
	var run int32 // of equal outcomes
	var last bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = seconds(probe.PeriodSeconds, 10)
		timeout, cancel := context.WithTimeout(ctx, seconds(probe.TimeoutSeconds, 1))
		err := c.probe(timeout, probe.ProbeHandler)
		cancel()
		if ctx.Err() != nil {
			return
		}
		ok, threshold := err == nil, max(probe.SuccessThreshold, 1)
		if !ok {
			threshold = probe.FailureThreshold
			if threshold == 0 {
				threshold = 3
			}
		}
		if ok != last {
			run = 0
		}
		last = ok
		if run++; run >= threshold && !verdict(err) {
			return
		}
	}
}

// probe runs the probe once. The pod's address is the host's loopback.
func (c *Container) probe(ctx context.Context, h corev1.ProbeHandler) error {
	switch {
	case h.Exec != nil:
		out, err := c.Exec(ctx, h.Exec.Command...)
		if err != nil && out != "" {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
		}
		return err
	case h.HTTPGet != nil:
		return c.probeHTTP(ctx, h.HTTPGet)
	case h.TCPSocket != nil:
		port, err := c.port(h.TCPSocket.Port)
		if err != nil {
			return err
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(orLoopback(h.TCPSocket.Host), port))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return errors.New("the probe has no handler")
}

// Certificates are not verified and connections are not kept, as in the kubelet.
var probeClient = &http.Client{Transport: &http.Transport{
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //#nosec G402 -- a kubelet's probes do not verify either
	DisableKeepAlives: true,
}}

func (c *Container) probeHTTP(ctx context.Context, get *corev1.HTTPGetAction) error {
	port, err := c.port(get.Port)
	if err != nil {
		return err
	}
	u, err := url.Parse(get.Path) // the path can contain a query
	if err != nil {
		return err
	}
	u.Scheme = strings.ToLower(string(get.Scheme))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	u.Host = net.JoinHostPort(orLoopback(get.Host), port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/kubelet")
	for _, h := range get.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
	}
	resp, err := probeClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s: %s", u, resp.Status)
	}
	return nil
}

// port returns the port of a probe, which gives it by number or by the name of a container port.
func (c *Container) port(p intstr.IntOrString) (string, error) {
	if p.Type == intstr.Int {
		return strconv.Itoa(p.IntValue()), nil
	}
	for _, named := range c.spec.Ports {
		if named.Name == p.StrVal {
			return strconv.Itoa(int(named.ContainerPort)), nil
		}
	}
	return "", fmt.Errorf("container %s has no port named %q", c.spec.Name, p.StrVal)
}

func orLoopback(host string) string {
	if host == "" {
		return loopback
	}
	return host
}
