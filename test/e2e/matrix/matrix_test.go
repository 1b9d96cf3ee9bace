// Package matrix_test prints the safety matrix: each fault, at each moment of a pod's life, for four versions
// of Prometheus, both deliveries, servers and agents. Each cell is a separate pod (test/barepod) with real
// programs: the config sidecar, a Prometheus, and AWS's double. A cell that harms Prometheus or loses a
// sample fails the test.
//
//	go test ./test/e2e/matrix -v         # the cells that CI runs
//	go test ./test/e2e/matrix -v -all    # all of them: make safety
package matrix_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/barepod"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

var (
	all     = flag.Bool("all", false, "run all cells, not only those of CI")
	workers = flag.Int("pods", 8, "how many pods run side by side")
	only    = flag.String("only", "", "run only the cells whose name contains this text")
)

func TestMain(m *testing.M) {
	if barepod.Hogging() {
		return
	}
	os.Exit(m.Run())
}

// sessionLife is so short that several renewals happen during a cell. A renewal comes after a third of it.
const sessionLife = 12 * time.Second

// startLimit is much longer than a start takes on a busy machine, and shorter than the waits for AWS.
const startLimit = 30 * time.Second

// version is a Prometheus under test.
type version struct{ name, tool string }

var versions = []version{{"3.15", "prometheus"}, {"3.1", "prometheus-3.1"}, {"2.42", "prometheus-2.42"}, {"2.22", "prometheus-2.22"}}

var deliveries = []policy.Delivery{policy.DeliveryRelay, policy.DeliverySigV4}

var modes = []string{"server", "agent"}

// The moments of a pod's life, in the matrix's order.
const (
	renewal          = "renewal"
	reload           = "reload"
	containerRestart = "container restart"
	start            = "start"
	podRestart       = "pod restart"
)

var moments = []string{renewal, reload, containerRestart, start, podRestart}

// fault is something that fails. begin starts it. It returns a function that ends it, and a function that
// reports whether it had an effect, because a fault without effect proves nothing.
type fault struct {
	name  string
	begin func(testing.TB, *barepod.Pod) (end func(), struck func() bool)
	// dropped is the code of an AMP error for which a sample is dropped by design: Prometheus does not retry
	// 4xx, with or without ampbridge.
	dropped []string
	// users is true for the fault that is the user's own mistake.
	users bool
}

func aws(name, target string, f awstest.Fault) fault {
	return fault{name: name, begin: func(_ testing.TB, p *barepod.Pod) (func(), func() bool) {
		injection := p.Account.Fail(target, f)
		return injection.Stop, func() bool { return injection.Hits() > 0 }
	}}
}

func faults() []fault {
	denied := aws("AMP 403", "aps:RemoteWrite", awstest.Deny)
	denied.dropped = []string{"AccessDeniedException"}
	return []fault{
		aws("STS refused", "sts:*", awstest.Refuse),
		aws("STS denying", "sts:*", awstest.Deny),
		aws("STS hanging", "sts:*", awstest.Hang),
		aws("STS 5xx", "sts:*", awstest.ServerError),
		aws("AMP refused", "aps:RemoteWrite", awstest.Refuse),
		denied,
		aws("AMP 429", "aps:RemoteWrite", awstest.Throttle),
		aws("AMP 5xx", "aps:RemoteWrite", awstest.ServerError),
		aws("AMP hanging", "aps:RemoteWrite", awstest.Hang),
		{name: "sidecar killed", begin: killed},
		{name: "sidecar hung", begin: hung},
		{name: "sidecar out of memory", begin: outOfMemory},
		{name: "user's configuration invalid", begin: invalid, users: true},
	}
}

// restarted returns a function that reports whether the sidecar has been started again since now.
func restarted(p *barepod.Pod) func() bool {
	before := p.Sidecar.Restarts()
	return func() bool { return p.Sidecar.Restarts() > before }
}

// killed kills the sidecar every second until the end.
func killed(_ testing.TB, p *barepod.Pod) (func(), func() bool) {
	struck := restarted(p)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			_ = p.Sidecar.Signal(syscall.SIGKILL) // between two runs there is no process
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}, struck
}

// hung stops the sidecar for three seconds and then kills it, as its liveness probe does. On a node that
// takes a minute, but sessions last six hours there.
func hung(tb testing.TB, p *barepod.Pod) (func(), func() bool) {
	struck := restarted(p)
	testkit.Must(tb, p.Sidecar.Signal(syscall.SIGSTOP))
	timer := time.AfterFunc(3*time.Second, func() { _ = p.Sidecar.Signal(syscall.SIGKILL) })
	return func() {
		if timer.Stop() {
			_ = p.Sidecar.Signal(syscall.SIGKILL)
		}
	}, struck
}

// outOfMemory lets the kernel kill the sidecar, because its container has no memory left.
func outOfMemory(tb testing.TB, p *barepod.Pod) (func(), func() bool) {
	struck := restarted(p)
	if !p.RunOutOfMemory(tb) {
		tb.Log("no memory cgroup can be created here: the sidecar is killed instead")
		p.Sidecar.Kill(tb)
	}
	return func() {}, struck
}

// invalid makes a change of the user's configuration that Prometheus cannot load.
func invalid(tb testing.TB, p *barepod.Pod) (func(), func() bool) {
	testkit.Must(tb, p.SetConfig(barepod.Invalid))
	return func() { testkit.Must(tb, p.SetConfig("# corrected")) }, func() bool {
		loaded, ok := p.Metric("prometheus_config_last_reload_successful")
		return ok && loaded == 0
	}
}

// cell is one pod and what happens to it.
type cell struct {
	fault
	version
	delivery policy.Delivery
	mode     string
	moment   string
}

func (c cell) String() string {
	return fmt.Sprintf("%s/%s/%s/%s/%s", c.version.name, c.delivery, c.mode, c.fault.name, c.moment)
}

// meaningless returns the reason why there is nothing to run; empty if there is something.
func (c cell) meaningless() string {
	switch starts := c.moment == start || c.moment == containerRestart || c.moment == podRestart; {
	case c.mode == "agent" && c.version.name == "2.22":
		return "agent mode came with 2.32"
	case c.delivery == policy.DeliverySigV4 && c.version.name == "2.22":
		return "sigv4 came with 2.26"
	case c.users && starts:
		return "no Prometheus starts on it"
	}
	return ""
}

// cells returns all cells, row by row.
func cells() (cells []cell) {
	for _, v := range versions {
		for _, delivery := range deliveries {
			for _, mode := range modes {
				for _, f := range faults() {
					for _, moment := range moments {
						cells = append(cells, cell{f, v, delivery, mode, moment})
					}
				}
			}
		}
	}
	return cells
}

// inCI reports whether a cell runs for each commit. For the relay on the newest version these are all faults,
// and for the others the moments that differ most.
func inCI(c cell) bool {
	faultMoments := map[string]string{
		"STS refused": start, "STS denying": renewal, "STS hanging": podRestart, "STS 5xx": containerRestart,
		"AMP refused": reload, "AMP 403": renewal, "AMP 429": start, "AMP 5xx": podRestart, "AMP hanging": containerRestart,
		"sidecar killed": reload, "sidecar hung": renewal, "sidecar out of memory": containerRestart, "user's configuration invalid": renewal,
	}
	if c.version.name == "3.15" && c.delivery == policy.DeliveryRelay && c.mode == "server" {
		return faultMoments[c.fault.name] == c.moment
	}
	return slices.Contains([]string{
		"3.15/sigv4/server/STS refused/renewal",
		"3.15/sigv4/server/STS hanging/start",
		"3.15/sigv4/server/AMP 5xx/renewal",
		"3.15/sigv4/server/sidecar killed/renewal",
		"3.15/sigv4/server/user's configuration invalid/renewal",
		"3.15/sigv4/agent/STS denying/renewal",
		"3.15/relay/agent/AMP 429/reload",
		"3.1/sigv4/server/STS 5xx/renewal",
		"3.1/relay/server/sidecar killed/container restart",
		"2.42/sigv4/server/STS refused/renewal",
		"2.22/relay/server/AMP refused/renewal",
	}, c.String())
}

func TestSafetyMatrix(t *testing.T) {
	site := barepod.New(t)
	site.SetSessionLife(sessionLife)
	programs := map[string]string{}
	for _, v := range versions {
		programs[v.name] = tools.Path(t, v.tool)
	}
	results := &results{cells: map[string]string{}}
	queue := make(chan cell)
	var group sync.WaitGroup
	for range *workers {
		group.Go(func() {
			for c := range queue {
				t.Run(c.String(), func(t *testing.T) {
					result := "failed"
					defer func() { results.set(c, result) }()
					result = play(t, site, programs[c.version.name], c)
				})
			}
		})
	}
	for _, c := range cells() {
		switch reason := c.meaningless(); {
		case !*all && !inCI(c), !strings.Contains(c.String(), *only):
		case reason != "":
			results.set(c, "– ("+reason+")")
		default:
			queue <- c
		}
	}
	close(queue)
	group.Wait()
	t.Log("\n" + results.table())
}

// play runs one cell and returns its text in the table.
func play(t *testing.T, site *barepod.Site, program string, c cell) string {
	p := site.Pod(t, barepod.Options{Program: program, Version: c.version.name, Delivery: c.delivery, Agent: c.mode == "agent"})
	first, restarts := 1, 0
	var took time.Duration
	// begin starts the fault and registers its end, which runs whatever else fails.
	var end func()
	var struck func() bool
	begin := func() {
		end, struck = c.begin(t, p)
		end = sync.OnceFunc(end)
		t.Cleanup(end)
	}
	if c.moment == start {
		took = startUnder(t, p, c, begin)
		scrapesUnder(t, p, first)
	} else {
		p.Start(t)
		testkit.Eventually(t, "samples", func() bool { return p.Count() > 3 && len(p.Missing(1, 2)) == 0 })
	}
	switch c.moment {
	case renewal:
		begin()
		time.Sleep(hold(c))
	case reload:
		begin()
		for i := range 3 {
			time.Sleep(time.Second)
			more := fmt.Sprintf("# change %d", i)
			if c.users {
				more += "\n" + barepod.Invalid
			}
			testkit.Must(t, p.SetConfig(more))
		}
		time.Sleep(2 * time.Second)
	case containerRestart:
		begin()
		time.Sleep(time.Second)
		p.Server.Kill(t)
		first, restarts = p.Count()+1, 1
		took = p.EventuallyReady(t, time.Now())
		scrapesUnder(t, p, first)
	case podRestart:
		p.Stop()
		first = p.Count() + 1
		took = startUnder(t, p, c, begin)
		scrapesUnder(t, p, first)
	}
	testkit.Eventually(t, "the fault strikes", struck)
	end()
	if took > startLimit {
		t.Errorf("Prometheus is ready after %s", took)
	}
	scrapes := p.EventuallyDelivered(t, first, c.dropped...)
	p.CheckUnharmed(t, restarts)
	result := fmt.Sprintf("%d scrapes", scrapes)
	if took > 0 {
		result = fmt.Sprintf("ready after %.1f s, %s", took.Seconds(), result)
	}
	return result
}

// startUnder starts a pod under the fault.
func startUnder(t *testing.T, p *barepod.Pod, c cell, begin func()) time.Duration {
	t.Helper()
	if !strings.HasPrefix(c.fault.name, "sidecar ") {
		begin() // a fault of AWS begins before anything runs
		return p.Start(t)
	}
	begun := time.Now()
	p.StartSidecar(t)
	begin()
	return p.StartServer(t, begun)
}

// scrapesUnder waits until a Prometheus that has just started has samples that can be lost. In its first five
// seconds its discovery returns no target.
func scrapesUnder(t *testing.T, p *barepod.Pod, first int) {
	t.Helper()
	testkit.Eventually(t, "scrapes under the fault", func() bool { return p.Count() >= first+5 })
}

// hold returns how long a fault lasts. It must include renewals: one for faults of AMP and of the sidecar,
// and all of a session for faults of STS and of the user.
func hold(c cell) time.Duration {
	switch {
	case c.users:
		return 2 * sessionLife
	case strings.HasPrefix(c.fault.name, "STS "):
		return sessionLife + sessionLife/4
	}
	return sessionLife / 2
}

// results are the cells that have ended.
type results struct {
	mu    sync.Mutex
	cells map[string]string
}

func (r *results) set(c cell, result string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cells[c.String()] = result
}

// table prints a row for each version, delivery, mode and fault with a cell.
func (r *results) table() string {
	var b strings.Builder
	b.WriteString("| Prometheus | delivery | mode | fault | " + strings.Join(moments, " | ") + " |\n" +
		strings.Repeat("| --- ", 4+len(moments)) + "|\n")
	ran := 0
	for row := range slices.Chunk(cells(), len(moments)) {
		var texts []string
		found := false
		for _, c := range row {
			text, ok := r.cells[c.String()]
			if ok && !strings.HasPrefix(text, "–") {
				ran++
			}
			found = found || ok
			texts = append(texts, text)
		}
		if found {
			c := row[0]
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c.version.name, c.delivery, c.mode, c.fault.name, strings.Join(texts, " | "))
		}
	}
	fmt.Fprintf(&b, "\n%d cells ran.\n", ran)
	return b.String()
}
