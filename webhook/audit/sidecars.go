package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Limits for reading the status of sidecars. A pod, and everything that answers at its address,
// belongs to a tenant. So it gets a GET request for one fixed path, and only the text that
// check.SidecarNews makes from the answer is shown.
const (
	readersAtOnce = 8
	readLimit     = 2 * time.Second
	// readsLimit is the limit for one round; the next round reads the rest.
	readsLimit    = 10 * time.Second
	maxStatus     = 64 << 10
	maxReadHeader = 8 << 10
)

// sidecars reads the status of config sidecars at their pods' addresses.
type sidecars struct {
	client *http.Client
	// limit is [readsLimit]; shorter in tests.
	limit time.Duration
	// next is the index where the next round begins, so that each pod has its turn.
	next int
}

func newSidecars() *sidecars {
	return &sidecars{limit: readsLimit, client: &http.Client{
		Timeout: readLimit,
		Transport: &http.Transport{
			// No proxy, because pods are reached directly.
			DialContext:            (&net.Dialer{Timeout: readLimit}).DialContext,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxReadHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// read sets the news of the pods with a sidecar that has a port. It marks a pod that it cannot
// read as unread, so that nothing about it is removed.
func (s *sidecars) read(ctx context.Context, pods []observed, now time.Time) (read, unread int) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	var todo []*observed
	for i := range pods {
		if o := &pods[i]; o.status.IsValid() {
			o.unread = true
			todo = append(todo, o)
		}
	}
	if len(todo) == 0 {
		return 0, 0
	}
	s.next %= len(todo)
	turns := make(chan *observed)
	var group sync.WaitGroup
	for range min(readersAtOnce, len(todo)) {
		group.Go(func() {
			for o := range turns {
				if status, err := s.status(ctx, o.status); err == nil {
					o.news, o.unread = check.SidecarNews(status, now), false
				}
			}
		})
	}
	done := 0
	for ; done < len(todo) && ctx.Err() == nil; done++ {
		select {
		case turns <- todo[(s.next+done)%len(todo)]:
		case <-ctx.Done():
		}
	}
	close(turns)
	group.Wait()
	s.next += done
	for _, o := range todo {
		if o.unread {
			unread++
		}
	}
	return len(todo) - unread, unread
}

// status reads the status at an address.
func (s *sidecars) status(ctx context.Context, at netip.AddrPort) (status sidecarconfig.Status, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+sidecarconfig.StatusPath, nil)
	if err != nil {
		return status, err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return status, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return status, fmt.Errorf("the answer has status %d", response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxStatus+1))
	switch {
	case err != nil:
		return status, err
	case len(text) > maxStatus:
		return status, errors.New("the answer is too long")
	}
	return sidecarconfig.DecodeStatus(text)
}

// statusAddress returns where the pod's sidecar serves its status; zero if it does not, or if
// a pod cannot have the address.
func (p *Pod) statusAddress() netip.AddrPort {
	_, injected := p.Metadata.Annotations[inject.AnnotationInjected]
	if !injected || p.Spec.HostNetwork || p.ended() || p.Record.Status.Phase != corev1.PodRunning {
		return netip.AddrPort{}
	}
	address, err := netip.ParseAddr(p.Record.Status.PodIP)
	if err != nil || !podAddress(address) {
		return netip.AddrPort{}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.Name != sidecarconfig.ContainerName || len(c.Ports) == 0 {
			continue
		}
		if port := c.Ports[0].ContainerPort; port > 0 && port < 1<<16 {
			return netip.AddrPortFrom(address, uint16(port))
		}
	}
	return netip.AddrPort{}
}

// metadataIPv6 is the address of EC2's instance metadata service. Its IPv4 address is link-local.
var metadataIPv6 = netip.MustParseAddr("fd00:ec2::254")

// podAddress reports whether a pod can have the address. Loopback addresses, and those of services
// that give credentials to a node, are excluded.
func podAddress(a netip.Addr) bool {
	a = a.Unmap()
	return a.Zone() == "" && a != metadataIPv6 &&
		!a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified()
}
