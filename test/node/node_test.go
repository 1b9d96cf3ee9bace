//go:build linux && e2e

package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const image = "localhost/probe:1"

// The pods run the test's own program.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			exit(serve())
		case "probe":
			exit(probe(context.Background(), os.Args[2]))
		}
	}
	os.Exit(node.Main(m, node.Setup{Prepare: func(_ context.Context, dir string) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return node.Image{
			Name:       image,
			Files:      map[string]string{"/probe": self},
			Entrypoint: []string{"/probe"},
			User:       "65532:65532",
		}.Write(
			filepath.Join(dir, "probe.tar"),
		)
	}}))
}

func exit(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve() error {
	end, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{
		Addr:    ":8000",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "served") }),
	}
	go func() { <-end.Done(); _ = server.Close() }()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// probe runs inside a pod and prints what it can reach.
func probe(ctx context.Context, host string) error {
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return err
	}
	fmt.Println("host:", addresses)
	for what, url := range map[string]string{"service": "http://server.default:80/", "outside": "http://" + host + "/"} {
		answer, err := http.Get(url)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(answer.Body)
		if err = errors.Join(err, answer.Body.Close()); err != nil {
			return err
		}
		fmt.Println(what+":", answer.StatusCode, string(body))
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	fmt.Println("api server:", version.GitVersion)
	return nil
}

// A pod on the node must be able to resolve names and to reach three servers: a Service through kube-proxy,
// the API server as the pod's own service account, and a server of the test at the node's address. The test
// runs twice, because the second node starts after a used one.
func TestPodsRun(t *testing.T) {
	const host = "sts.eu-west-1.amazonaws.com"
	listener, err := net.Listen("tcp", net.JoinHostPort(node.Address, "80"))
	testkit.Must(t, err)
	outside := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })}
	go func() { _ = outside.Serve(listener) }()
	t.Cleanup(func() { _ = outside.Close() })

	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			n := node.Start(t, node.Options{
				Hosts: map[string]string{
					host: node.Address,
				},
				Images:   []string{filepath.Join(node.Dir(), "probe.tar")},
				Progress: t.Output(),
			})
			ctx := t.Context()
			create(t, n, "server", "serve")
			service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "server"}, Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "server"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8000)}},
			}}
			if _, err := n.Client().CoreV1().Services("default").Create(ctx, service, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			n.Eventually(t, "the Service has an endpoint", func(ctx context.Context) error {
				slices, err := n.Client().DiscoveryV1().EndpointSlices(
					"default",
				).List(
					ctx,
					metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=server"},
				)
				if err == nil &&
					(len(slices.Items) == 0 || len(slices.Items[0].Endpoints) == 0 || !*slices.Items[0].Endpoints[0].Conditions.Ready) {
					err = errors.New("not ready")
				}
				return err
			})
			create(t, n, "probe", "probe", host)
			n.Eventually(t, "the probe has ended", func(ctx context.Context) error {
				pod, err := n.Client().CoreV1().Pods("default").Get(ctx, "probe", metav1.GetOptions{})
				if err == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
					err = fmt.Errorf("phase %s", pod.Status.Phase)
				}
				return err
			})
			got := n.Logs(ctx, "default", "probe", "main")
			for _, want := range []string{"host: [" + node.Address + "]\n", "service: 200 served\n", "outside: 418 ", "api server: v1."} {
				if !strings.Contains(got, want) {
					t.Errorf("the probe lacks %q:\n%s", want, got)
				}
			}
			start := time.Now()
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			t.Logf("closed within %s", time.Since(start))
		})
	}
}

func create(t *testing.T, n *node.Node, name string, args ...string) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Image: image, ImagePullPolicy: corev1.PullNever, Args: args}},
		},
	}
	if _, err := n.Client().CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
