package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	loopback     = "127.0.0.1"
	pollInterval = 50 * time.Millisecond
)

// start makes one attempt to start the cluster. After an error nothing of it remains.
func start(ctx context.Context, options Options, programs map[string]string) (_ *Cluster, err error) {
	dir, err := os.MkdirTemp("", "ampbridge-cluster-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: dir, Issuer: options.Issuer}
	defer func() {
		if err != nil {
			_ = c.Close() // the first error is the useful one
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	etcdURL := "http://" + net.JoinHostPort(loopback, ports[0])
	peerURL := "http://" + net.JoinHostPort(loopback, ports[1])
	c.URL = "https://" + net.JoinHostPort(loopback, ports[2])

	pki, err := newPKI(dir)
	if err != nil {
		return nil, err
	}
	c.config = &rest.Config{
		Host:            c.URL,
		BearerToken:     pki.adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAData: pki.ca},
		QPS:             -1,
	}
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return nil, err
	}
	if err := writeKubeconfig(c.Kubeconfig(), c.config); err != nil {
		return nil, err
	}

	begin := time.Now()
	etcd := []string{
		"--name=ampbridge", "--data-dir=" + filepath.Join(dir, "etcd"),
		"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
		"--listen-peer-urls=" + peerURL, "--initial-advertise-peer-urls=" + peerURL,
		"--initial-cluster=ampbridge=" + peerURL,
		// The data is only needed while the processes run, so there is no reason to wait for the disk.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
	apiServer := append([]string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=" + loopback, "--secure-port=" + ports[2],
		// With an explicit address the machine needs no default route. Endpoints must not have loopback
		// addresses, so the Service "kubernetes" has no endpoint.
		"--advertise-address=" + loopback, "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--tls-cert-file=" + pki.path("tls.crt"), "--tls-private-key-file=" + pki.path("tls.key"),
		"--token-auth-file=" + pki.path("tokens.csv"),
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=" + c.Issuer, "--service-account-jwks-uri=" + jwksURI(c.Issuer),
		"--service-account-key-file=" + pki.path("sa.pub"), "--service-account-signing-key-file=" + pki.path("sa.key"),
		// Without kube-proxy the API server calls the Services of webhooks at their endpoints.
		"--enable-aggregator-routing=true",
		"--allow-privileged=true",
		"--profiling=false",
	}, options.ExtraAPIServerArgs...)
	// With the administrator's permissions the controllers need no service accounts of their own, which saves
	// time.
	controllers := append([]string{
		"--kubeconfig=" + c.Kubeconfig(),
		"--service-account-private-key-file=" + pki.path("sa.key"), "--root-ca-file=" + pki.path("ca.crt"),
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=200", "--kube-api-burst=400",
	}, options.ExtraControllerManagerArgs...)

	// The API server itself waits for etcd.
	for _, p := range []struct {
		name string
		args []string
	}{{"etcd", etcd}, {"kube-apiserver", apiServer}} {
		if err := c.run(programs[p.name], p.name, p.args); err != nil {
			return nil, err
		}
	}
	say(options.Progress, "started etcd and kube-apiserver, logs in %s", dir)
	if err := c.waitUntil(ctx, "kube-apiserver is ready", c.apiServerReady); err != nil {
		return nil, err
	}
	say(options.Progress, "kube-apiserver is ready at %s after %s", c.URL, time.Since(begin).Round(time.Millisecond))

	if options.NoControllers {
		c.rootCA = pki.ca
	} else if err := c.run(programs["kube-controller-manager"], "kube-controller-manager", controllers); err != nil {
		return nil, err
	}
	if options.Scheduler {
		args := []string{"--kubeconfig=" + c.Kubeconfig(), "--leader-elect=false", "--secure-port=0"}
		if err := c.run(programs["kube-scheduler"], "kube-scheduler", args); err != nil {
			return nil, err
		}
	}
	if err := c.publishIssuer(ctx); err != nil {
		return nil, err
	}
	if options.NoControllers {
		return c, nil
	}
	if err := c.waitUntil(ctx, "kube-controller-manager works", func(ctx context.Context) error {
		return c.namespaceReady(ctx, metav1.NamespaceDefault)
	}); err != nil {
		return nil, err
	}
	say(options.Progress, "kube-controller-manager works, the cluster is ready after %s", time.Since(begin).Round(time.Millisecond))
	return c, nil
}

// Run starts one more program as part of the cluster. Its output goes to name.log in Dir, which is also its
// working directory. Close stops it before the programs that started earlier. Call it only during setup, and
// not concurrently with WaitUntil or Close.
func (c *Cluster) Run(program, name string, args ...string) error { return c.run(program, name, args) }

func (c *Cluster) run(program, name string, args []string) error {
	p, err := startProcess(program, name, args, c.Dir)
	if err != nil {
		return err
	}
	c.processes = append(c.processes, p)
	return nil
}

// WaitUntil polls check until it returns nil. If the context or one of the cluster's programs ends first, it
// returns an error that names what it waited for.
func (c *Cluster) WaitUntil(ctx context.Context, what string, check func(context.Context) error) error {
	if err := c.waitUntil(ctx, what, check); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// waitUntil polls check until it returns nil. It gives up if the context or a process of the cluster ends.
func (c *Cluster) waitUntil(ctx context.Context, what string, check func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		for _, p := range c.processes {
			if err := p.exited(); err != nil {
				return err
			}
		}
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			last := c.processes[len(c.processes)-1]
			return fmt.Errorf("waiting until %s: %w; last answer: %w; the end of %s:\n%s",
				what, context.Cause(ctx), err, last.logFile, last.logTail())
		case <-ticker.C:
		}
	}
}

func (c *Cluster) apiServerReady(ctx context.Context) error {
	return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// publishIssuer makes the discovery document and the keys public, as the clouds do.
func (c *Cluster) publishIssuer(ctx context.Context) error {
	const role = "system:service-account-issuer-discovery"
	_, err := c.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "ampbridge-test-issuer-discovery"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{
			{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:unauthenticated"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("bind ClusterRole %s: %w", role, err)
	}
	return nil
}

// freePorts returns n different loopback ports on which no process listens now.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, err
		}
		// The listeners stay open until all ports are chosen, so that none is chosen twice.
		defer func() { _ = l.Close() }()
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}
