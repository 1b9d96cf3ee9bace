//go:build linux && e2e

package install

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// killSidecar kills the sidecar of the chart's Prometheus every ten seconds for a minute. The kubelet starts
// it again, each time after a longer delay. In the end the workspace must have every sample.
func killSidecar(e *environment) {
	pod := e.current(byChart)
	begin, kills := time.Now(), 0
	for time.Since(begin) < time.Minute {
		for _, pid := range sidecars(pod.Name) {
			e.must(syscall.Kill(pid, syscall.SIGKILL))
			kills++
		}
		time.Sleep(10 * time.Second)
	}
	if kills < 2 {
		e.Fatalf("the sidecar of %s was killed %d times only", pod.Name, kills)
	}
	until := time.Now()
	query := fmt.Sprintf(`sum(count_over_time(up[%ds] @ %d))`, int(until.Sub(begin).Seconds()), until.Unix())
	scraped, err := ask(e.Context(), pod.Status.PodIP, query)
	e.must(err)
	if scraped == 0 {
		e.Fatal("Prometheus has scraped nothing during the kills")
	}
	query = fmt.Sprintf(`sum(count_over_time(up{cluster=%q}[%ds] @ %d))`, e.name, int(until.Sub(begin).Seconds()), until.Unix())
	e.Eventually(e.T, "every sample is in the workspace", func(ctx context.Context) error {
		found, err := e.cloud.Query(ctx, e.workspace.ID(), query)
		if err != nil {
			return err
		}
		if len(found) != 1 || found[0].Value != scraped {
			return fmt.Errorf("%v, want %v", found, scraped)
		}
		return nil
	})
	e.proved("the sidecar of %s was killed %d times: all %.0f scrapes are in the workspace", pod.Name, kills, scraped)
}

// sidecars returns the processes of a pod's sidecar on this machine.
func sidecars(pod string) (pids []int) {
	variable := []byte("\x00" + sidecarconfig.PodNameVariable + "=" + pod + "\x00")
	files, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is valid
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(append([]byte{0}, text...), variable) {
			continue // it has ended, or is not a process of this pod
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// ask returns the number that a Prometheus answers to a query; 0 if there is none.
func ask(ctx context.Context, ip, query string) (float64, error) {
	text, err := testkit.Get(ctx, "http://"+ip+":9090/api/v1/query?"+url.Values{"query": {query}}.Encode())
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Data.Result) == 0 {
		return 0, err
	}
	return strconv.ParseFloat(fmt.Sprint(answer.Data.Result[0].Value[1]), 64)
}
