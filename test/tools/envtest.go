package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// envtestIndex lists what setup-envtest downloads. [envtestVariable] names another one, or "none".
	envtestIndex    = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"
	envtestVariable = "AMPBRIDGE_ENVTEST_INDEX"
	// envtestAnswer is how long the index has to answer: without the internet, a build should begin soon.
	envtestAnswer = 3 * time.Second
	// envtestDownload is less than a build of kube-apiserver takes.
	envtestDownload = 4 * time.Minute
)

// errNoDownload means that the tool is built without a download being tried.
var errNoDownload = errors.New("no download")

// download puts the program at path, if setup-envtest has it and the internet can be reached. setup-envtest verifies
// the checksum.
func (t Tool) download(ctx context.Context, root, path string, progress io.Writer) error {
	index := os.Getenv(envtestVariable)
	if index == "" {
		index = envtestIndex
	}
	if !t.Envtest || index == "none" {
		return errNoDownload
	}
	if err := answers(ctx, index); err != nil {
		return err
	}
	cache, err := CacheDir()
	if err != nil {
		return err
	}
	// Any patch release of the minor version that the other programs have.
	minor := kubernetesVersion[1:strings.LastIndexByte(kubernetesVersion, '.')]
	say(progress, "downloading %s %s.x with setup-envtest", t.Name, minor)
	ctx, cancel := context.WithTimeout(ctx, envtestDownload)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", "-mod=readonly", envtestModule,
		"use", minor+".x", "--bin-dir", filepath.Join(cache, "envtest"), "--index", index, "--print", "path")
	cmd.Dir = Tool{Dir: "setup-envtest"}.moduleDir(root)
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("setup-envtest: %w\n%s", err, lastLines(errs.String(), errorLines))
	}
	content, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), t.Name))
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o700)
}

// answers returns an error if the URL does not answer soon.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, envtestAnswer)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}
