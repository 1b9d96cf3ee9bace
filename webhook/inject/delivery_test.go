package inject

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Each case tests one thing that a pod must prove for sigv4. The first pod of each kind proves all.
// Each other pod lacks one thing and gets the relay.
func TestDelivery(t *testing.T) {
	const (
		image  = "image: 'prom/prometheus:v3.15.0', "
		mount  = "volumeMounts: [{name: c, mountPath: /c}]"
		plain  = image + "args: [--config.file=/c/p.yml, --web.enable-lifecycle], " + mount
		self   = image + "args: [--config.file=/c/p.yml, --config.auto-reload], " + mount
		notOwn = "container reload does not call Prometheus's own reload address"
	)
	local := sidecarconfig.Prometheus{Address: "127.0.0.1:9090", Version: "3.15"}
	args := func(more string) string {
		return image + "args: [--config.file=/c/p.yml, --web.enable-lifecycle, " + more + "], " + mount
	}
	reloader := func(more string) string {
		return "- {name: reload, args: [--watched-dir=/c" + more + "], " + mount + "}"
	}
	at := func(address, prefix string) sidecarconfig.Prometheus {
		return sidecarconfig.Prometheus{Address: address, Prefix: prefix, Version: "3.15"}
	}
	for _, c := range []struct {
		name, members string
		// more are other containers. If it begins with "init", it includes init containers.
		more       string
		reload     Reload
		why        string // empty for sigv4
		prometheus sidecarconfig.Prometheus
	}{
		{"a reloader with its default address", plain, reloader(""), ReloadByReloader, "", local},
		{"Prometheus itself", self, "", ReloadBySelf, "", local},
		{"nothing", plain, "", ReloadNone, "nothing in the pod reloads Prometheus", local},

		{"its own address by another name", plain, reloader(", '--reload-url=http://[::1]:9090/-/reload'"), ReloadByReloader, "", local},
		{"one address, and that of the pod", args("--web.listen-address=10.0.0.1:80"),
			reloader(", --reload-url=http://10.0.0.1/-/reload"), ReloadByReloader, "", at("10.0.0.1:80", "")},
		{"localhost alone", args("'--web.listen-address=127.0.0.1:9090'"), reloader(", --reload-url=http://localhost:9090/-/reload"),
			ReloadByReloader, "", local},
		{"another port", plain, reloader(", --reload-url=http://localhost:9093/-/reload"), ReloadNone, notOwn, local},
		{"another loopback address", args("'--web.listen-address=[::1]:9090'"), reloader(", --reload-url=http://127.0.0.1:9090/-/reload"),
			ReloadNone, notOwn, at("[::1]:9090", "")},
		{"loopback, where it does not listen", args("--web.listen-address=10.0.0.1:9090"), reloader(""),
			ReloadNone, notOwn, at("10.0.0.1:9090", "")},
		{"a Service", plain, reloader(", --reload-url=http://prometheus:9090/-/reload"), ReloadNone, notOwn, local},
		{"a variable", plain, reloader(", '--reload-url=http://$(POD_IP):9090/-/reload'"), ReloadNone, notOwn, local},
		{"TLS, which it does not speak", plain, reloader(", --reload-url=https://localhost:9090/-/reload"), ReloadNone, notOwn, local},
		{"no scheme", plain, reloader(", --reload-url=localhost:9090/-/reload"), ReloadNone, notOwn, local},

		{"the prefix of its paths", args("--web.route-prefix=/p/q/"), reloader(", --reload-url=http://localhost:9090/p/q/-/reload"),
			ReloadByReloader, "", at("127.0.0.1:9090", "/p/q")},
		{"that of its external address", args("'--web.external-url=https://x.example/p/'"),
			reloader(", --reload-url=http://localhost:9090/p/-/reload"), ReloadByReloader, "", at("127.0.0.1:9090", "/p")},
		{"an external address, and another prefix", args("'--web.external-url=https://x.example/p/', --web.route-prefix=/"),
			reloader(""), ReloadByReloader, "", local},
		{"without the prefix", args("--web.route-prefix=/p"), reloader(""), ReloadNone, notOwn, at("127.0.0.1:9090", "/p")},
		{"with another prefix", plain, reloader(", --reload-url=http://localhost:9090/p/-/reload"), ReloadNone, notOwn, local},
		{"the prefix of the external address forgotten", args("'--web.external-url=https://x.example/p/'"), reloader(""),
			ReloadNone, notOwn, at("127.0.0.1:9090", "/p")},

		{"a reloader that watches something else", plain, "- {name: reload, args: [--watched-dir=/rules], volumeMounts: " +
			"[{name: r, mountPath: /rules}]}", ReloadNone, "container reload does not watch the configuration", local},
		{"a Thanos sidecar that watches nothing", plain, "- {name: thanos, args: [sidecar, " +
			"--prometheus.url=http://localhost:9090, --objstore.config-file=/o]}", ReloadNone, "nothing in the pod reloads Prometheus", local},
		{"a reloader that ends", plain, "init- {name: reload, args: [--watched-dir=/c], " + mount + "}", ReloadNone, "nothing in the pod", local},
		{"a reloader that reads only once", plain, reloader(", --watch-interval=0s"), ReloadNone, "reads the configuration only once", local},
		{"a signal", plain, reloader(", --reload-method=signal"), ReloadNone, "container reload reloads Prometheus by a signal", local},
		{"a container that calls the address on its own", plain, "- {name: x, env: [{name: REQ_URL, value: 'http://localhost:9090/-/reload'}]}",
			ReloadNone, "nothing in the pod reloads Prometheus", local},
		{"an address that is closed", strings.Replace(plain, "--web.enable-lifecycle", "--log.level=info", 1), reloader(""),
			ReloadNone, "--web.enable-lifecycle is missing", local},
		{"subPath", image + "args: [--config.file=/c/p.yml], volumeMounts: [{name: c, mountPath: /c/p.yml, subPath: p.yml}]", "",
			ReloadNone, "mounted with subPath", local},
		{"subPath, and a reloader", image + "args: [--config.file=/c/p.yml, --web.enable-lifecycle], " +
			"volumeMounts: [{name: c, mountPath: /c/p.yml, subPath: p.yml}]", reloader(""), ReloadNone, "mounted with subPath", local},
		{"subPath, and Prometheus watches it", image + "args: [--config.file=/c/p.yml, --config.auto-reload], " +
			"volumeMounts: [{name: c, mountPath: /c/p.yml, subPath: p.yml}]", "", ReloadNone, "mounted with subPath", local},

		{"an unknown version", strings.Replace(self, ":v3.15.0", ":latest", 1), "", ReloadNone, "version of Prometheus is not known",
			sidecarconfig.Prometheus{Address: "127.0.0.1:9090"}},
		{"a version that cannot sign", strings.Replace(plain, "v3.15.0", "v2.25.2", 1), reloader(""), ReloadByReloader,
			"Prometheus 2.25 cannot sign", sidecarconfig.Prometheus{Address: "127.0.0.1:9090", Version: "2.25"}},
		{"the feature, too old", strings.NewReplacer("v3.15.0", "v2.55.1", "--config.auto-reload", "--enable-feature=auto-reload-config").
			Replace(self), "", ReloadNone, "Prometheus 2.55 has no auto-reload",
			sidecarconfig.Prometheus{Address: "127.0.0.1:9090", Version: "2.55"}},

		{"a web configuration", args("--web.config.file=/w.yml"), reloader(", --reload-url=https://localhost:9090/-/reload"),
			ReloadByReloader, "--web.config.file", sidecarconfig.Prometheus{Address: "127.0.0.1:9090", TLS: true, Version: "3.15"}},
		{"an address that the pod does not show", strings.Replace(self, "--config.auto-reload",
			"--config.auto-reload, '--web.listen-address=$(POD_IP):9090'", 1), "", ReloadBySelf, "do not show where Prometheus listens",
			sidecarconfig.Prometheus{Version: "3.15"}},

		{"a profile", self + ", env: [{name: AWS_PROFILE, value: x}]", "", ReloadBySelf, "container prometheus sets AWS_PROFILE", local},
		{"a default profile", self + ", env: [{name: AWS_DEFAULT_PROFILE, value: x}]", "", ReloadBySelf, "sets AWS_DEFAULT_PROFILE", local},
		{"a credentials file", self + ", env: [{name: AWS_SHARED_CREDENTIALS_FILE, value: x}]", "", ReloadBySelf,
			"sets AWS_SHARED_CREDENTIALS_FILE", local},
		{"a config file", self + ", env: [{name: AWS_CONFIG_FILE, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]", "", ReloadBySelf,
			"sets AWS_CONFIG_FILE", local},
		{"variables of a Secret", self + ", envFrom: [{secretRef: {name: x}}]", "", ReloadBySelf, "has envFrom", local},
		{"a volume at home", strings.Replace(self, "[{name: c,", "[{name: r, mountPath: /root/.aws/}, {name: c,", 1), "", ReloadBySelf,
			"has a volume at ~/.aws", local},
		{"a file at home", strings.Replace(self, "[{name: c,", "[{name: r, mountPath: /home/.aws/config, subPath: x}, {name: c,", 1), "",
			ReloadBySelf, "has a volume at ~/.aws", local},
		{"static keys, which a profile overrides", self + ", env: [{name: AWS_ACCESS_KEY_ID, value: x}]", "", ReloadBySelf, "", local},
		{"files of another container", self, "- {name: x, env: [{name: AWS_PROFILE, value: x}], envFrom: [{secretRef: {name: x}}]}",
			ReloadBySelf, "", local},
	} {
		t.Run(c.name, func(t *testing.T) {
			init, containers := "", c.more
			if only, found := strings.CutPrefix(c.more, "init"); found {
				init, containers = "initContainers:\n"+only, ""
			}
			data := podOf(t, init+`
containers:
- {name: prometheus, `+c.members+`}
`+containers+`
volumes: [{name: c, configMap: {name: c}}, {name: r, configMap: {name: r}}]`)
			a, err := sidecarconfig.Decode(encodedConfig(reloads(t, data, c.reload, c.why)))
			testkit.Must(t, err)
			testkit.Equal(t, "what the sidecar knows of Prometheus", c.prometheus, a.Prometheus)
		})
	}
}

// reloads injects a pod, and checks what its mark says about reloads: no reason why means sigv4. It
// returns the injected pod.
func reloads(t *testing.T, data []byte, want Reload, why string) *Pod {
	t.Helper()
	o := options(t)
	ops, d := Inject(decode(t, data), granted(t, o.Policy, "monitoring"), o)
	if !d.Inject || d.Warning != "" {
		t.Fatalf("%+v", d)
	}
	mark, _ := Marked(ops)
	if mark.Reload != want || mark.Why != "" != (why != "") || !strings.Contains(mark.Why, why) {
		t.Errorf("reload %q, why %q; want %q, %q", mark.Reload, mark.Why, want, why)
	}
	deliveryIs(t, data, ops, why == "")
	return decode(t, apply(t, data, ops))
}

// In the operator's pods a reloader expands the file into an emptyDir, and Prometheus reads that.
func TestDeliveryOfExpandedConfiguration(t *testing.T) {
	const (
		expands = "args: [--config-file=/in/p.gz, --config-envsubst-file=/out/p.yml], volumeMounts: [{name: in, mountPath: /in}, " +
			"{name: out, mountPath: /out}]}"
		elsewhere = "[--reload-url=http://localhost:9093/-/reload, "
	)
	init, reloader := "initContainers:\n- {name: init, "+expands, "- {name: reload, "+expands
	for _, c := range []struct {
		name, init, containers string
		args                   string // of Prometheus
		reload                 Reload
		why                    string // empty for sigv4
	}{
		{"at the start and later", init, reloader, "--web.enable-lifecycle", ReloadByReloader, ""},
		{"later", "", reloader, "--web.enable-lifecycle", ReloadByReloader, ""},
		{"by a native sidecar", strings.Replace(init, "args", "restartPolicy: Always, args", 1), "", "--web.enable-lifecycle",
			ReloadByReloader, ""},
		{"Prometheus watches what is made", "", strings.Replace(reloader, "[", elsewhere, 1), "--config.auto-reload", ReloadBySelf, ""},
		{"once", init, "", "--web.enable-lifecycle", ReloadNone, "written only once"},
		{"once, and Prometheus watches it", init, "", "--config.auto-reload", ReloadNone, "written only once"},
		{"once, by a container that ends", "", strings.Replace(reloader, "[", "[--watch-interval=0, ", 1), "--config.auto-reload", ReloadNone,
			"written only once"},
		{"by one that reloads something else", init, strings.Replace(reloader, "[", elsewhere, 1), "--web.enable-lifecycle", ReloadNone,
			"own reload address"},
		{"by one that signals", init, strings.Replace(reloader, "[", "[--reload-method=signal, ", 1), "--web.enable-lifecycle", ReloadNone,
			"by a signal"},
		{"once, and a reloader watches the source", init, "- {name: reload, args: [--config-file=/in/p.gz], volumeMounts: [{name: in, " +
			"mountPath: /in}]}", "--web.enable-lifecycle", ReloadNone, "written only once"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := podOf(t, c.init+`
containers:
- {name: prometheus, image: 'prom/prometheus:v3.15.0', args: [--config.file=/c/p.yml, `+c.args+`],
  volumeMounts: [{name: out, mountPath: /c}]}
`+c.containers+`
volumes: [{name: in, secret: {secretName: s}}, {name: out, emptyDir: {}}]`)
			if first := reloads(t, data, c.reload, c.why).Spec.InitContainers[0]; first.Name != sidecarconfig.ContainerName {
				t.Errorf("%s expands the file before the sidecar serves it", first.Name)
			}
		})
	}
}

// The delivery that the policy and the pod's annotation request.
func TestDeliveryAsAsked(t *testing.T) {
	pod := func(args string) []byte {
		return podOf(t, `
containers:
- {name: prometheus, image: 'prom/prometheus:v3.15.0', args: [--config.file=/c/p.yml, `+args+`], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`)
	}
	for _, c := range []struct {
		name            string
		policy          []policy.Delivery // of central and backup
		annotation      policy.Delivery
		args            string
		central, backup policy.Delivery
		why, warns      string
	}{
		{"auto, and it is proven", nil, "", "--config.auto-reload", policy.DeliverySigV4, policy.DeliverySigV4, "", ""},
		{"auto, and it is not", nil, "", "--web.enable-lifecycle", policy.DeliveryRelay, policy.DeliveryRelay, "nothing in the pod", ""},
		{"the relay", []policy.Delivery{"relay", "relay"}, "", "--config.auto-reload", policy.DeliveryRelay, policy.DeliveryRelay, asked, ""},
		{"the relay for one", []policy.Delivery{"auto", "relay"}, "", "--config.auto-reload", policy.DeliverySigV4,
			policy.DeliveryRelay, asked, ""},
		{"the relay by annotation", nil, "relay", "--config.auto-reload", policy.DeliveryRelay, policy.DeliveryRelay, asked, ""},
		{"sigv4, and it is proven", []policy.Delivery{"sigv4", "auto"}, "", "--config.auto-reload", policy.DeliverySigV4,
			policy.DeliverySigV4, "", ""},
		{"sigv4, and it is not", []policy.Delivery{"auto", "sigv4"}, "", "--web.enable-lifecycle, --web.config.file=/w", policy.DeliveryRelay,
			policy.DeliveryRelay, "nothing in the pod", "destination backup asks for delivery sigv4, but this pod gets relay: nothing in the pod " +
				"reloads Prometheus; Prometheus has --web.config.file"},
		{"sigv4 by annotation, and it is not", nil, "sigv4", "--web.enable-lifecycle", policy.DeliveryRelay, policy.DeliveryRelay,
			"nothing in the pod", "destination central asks for delivery sigv4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			for i, d := range c.policy {
				o.Policy.Destinations[i].Delivery = d
			}
			r := policy.Request{Namespace: "pair", Injection: policy.InjectionEnabled, ServiceAccount: "prometheus-x", Prometheus: true}
			if c.annotation != "" {
				r.PodAnnotations = map[string]string{policy.AnnotationDelivery: string(c.annotation)}
			}
			decision := o.Policy.Decide(r)
			data := pod(c.args)
			ops, d := Inject(decode(t, data), decision, o)
			mark, _ := Marked(ops)
			testkit.Equal(t, "deliveries", map[string]policy.Delivery{"central": c.central, "backup": c.backup}, mark.Delivery)
			if mark.Why != "" != (c.why != "") || !strings.Contains(mark.Why, c.why) {
				t.Errorf("why %q, want %q", mark.Why, c.why)
			}
			if d.Warning != "" != (c.warns != "") || !strings.Contains(d.Warning, c.warns) || len(d.Warning) > maxWarning {
				t.Errorf("warning %q, want %q", d.Warning, c.warns)
			}
			after := decode(t, apply(t, data, ops))
			variable := after.Spec.Containers[0].setsEnv(variableCredentialsFile)
			if variable != (c.central == policy.DeliverySigV4 || c.backup == policy.DeliverySigV4) {
				t.Errorf("%s is set: %t", variableCredentialsFile, variable)
			}
			// The policy's own destinations stay unchanged.
			testkit.Equal(t, "the decision", decision, o.Policy.Decide(r))
			markStays(t, after, decision.Entitlement, o.Policy)
		})
	}
}

// markStays checks that an injected pod would get the mark that it has.
func markStays(t *testing.T, pod *Pod, e policy.Entitlement, p *policy.Policy) {
	t.Helper()
	carried, today, err := Mark(pod, e, p)
	testkit.Must(t, err)
	testkit.Equal(t, "the mark", carried, today)
}

// If a change of the policy would change a new pod, it changes the mark of an injected pod in the
// same way.
func TestMarkFollowsDelivery(t *testing.T) {
	for _, args := range []string{"--config.auto-reload", "--web.enable-lifecycle"} {
		data := podOf(t, `
containers:
- {name: prometheus, image: 'prom/prometheus:v3.15.0', args: [--config.file=/c/p.yml, `+args+`], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`)
		for _, before := range []policy.Delivery{policy.DeliveryAuto, policy.DeliverySigV4, policy.DeliveryRelay} {
			for _, after := range []policy.Delivery{policy.DeliveryAuto, policy.DeliverySigV4, policy.DeliveryRelay} {
				o := options(t)
				o.Policy.Destinations[0].Delivery = before
				pod := decode(t, injected(t, data, o))
				o.Policy.Destinations[0].Delivery = after
				_, today, err := Mark(pod, granted(t, o.Policy, "monitoring").Entitlement, o.Policy)
				testkit.Must(t, err)
				fresh, _, err := Mark(decode(t, injected(t, data, o)), granted(t, o.Policy, "monitoring").Entitlement, o.Policy)
				testkit.Must(t, err)
				testkit.Equal(t, fmt.Sprintf("%s, from %s to %s: the mark of a new pod", args, before, after), fresh, today)
			}
		}
	}
}

// The relay makes the requests that Prometheus would make with sigv4. So it gets the container's
// proxy if the policy says that the environment names the proxy.
func TestProxyFromEnvironment(t *testing.T) {
	data := podOf(t, `
containers:
- {name: prometheus, image: 'prom/prometheus:v3.15.0', args: [--config.file=/c/p.yml], volumeMounts: [{name: c, mountPath: /c}],
  env: [{name: HTTPS_PROXY, value: 'http://proxy.example:3128'}, {name: A, value: b}, {name: no_proxy, value: '.svc,10.0.0.0/8'},
    {name: https_proxy, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: NO_PROXY, value: '$(KUBERNETES_SERVICE_HOST)'}]}
volumes: [{name: c, configMap: {name: c}}]`)
	c := &decode(t, data).Spec.Containers[0]
	a := sidecarconfig.Config{Destinations: make([]sidecarconfig.Destination, 2)}
	if got := proxyEnv(c, a); got != nil {
		t.Errorf("the policy does not ask for it: %v", got)
	}
	a.Destinations[1].AMP.ProxyFromEnvironment = true
	want := []EnvVar{{Name: "HTTPS_PROXY", Value: "http://proxy.example:3128"}, {Name: "no_proxy", Value: ".svc,10.0.0.0/8"}}
	testkit.Equal(t, "proxy variables", want, proxyEnv(c, a))
	if len(c.Env) != 5 || c.Env[1] != (EnvVar{Name: "A", Value: "b"}) {
		t.Errorf("the container's own variables changed: %v", c.Env)
	}
	o := options(t)
	o.Policy.Destinations[0].RemoteWrite.ProxyFromEnvironment = true
	sidecar := decode(t, injected(t, data, o)).Spec.InitContainers[0]
	for _, v := range want {
		if !slices.Contains(sidecar.Env, v) {
			t.Errorf("the sidecar has %v, want %v", sidecar.Env, v)
		}
	}
}

// Another webhook adds AWS files to the Prometheus container, and the API server calls this webhook
// again. With sigv4 Prometheus would not start.
func TestOwnFilesThatAppearLater(t *testing.T) {
	at := func(list string) string { return pointer("spec", "containers", 0, list, "-") }
	for name, c := range map[string]struct {
		foreign jsonpatch.Operation
		args    string // --config.auto-reload
		why     string // empty if nothing changes
	}{
		"a credentials file": {adding(at("env"), EnvVar{Name: "AWS_SHARED_CREDENTIALS_FILE", Value: "/vault/aws"}), "",
			"container prometheus sets AWS_SHARED_CREDENTIALS_FILE"},
		"a profile": {adding(at("env"), EnvVar{Name: "AWS_PROFILE", Value: "x"}), "", "container prometheus sets AWS_PROFILE"},
		"a volume": {adding(at("volumeMounts"), VolumeMount{Name: "c", MountPath: "/root/.aws"}), "",
			"container prometheus has a volume at ~/.aws"},
		"an identity": {adding(at("env"), EnvVar{Name: "AWS_CONTAINER_CREDENTIALS_FULL_URI", Value: "x"}), "", ""},
		"a profile, and the pod has the relay": {adding("/spec/containers/0/env", []EnvVar{{Name: "AWS_PROFILE", Value: "x"}}),
			"--web.enable-lifecycle", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			args := "--config.auto-reload"
			if c.args != "" {
				args = c.args
			}
			once := injected(t, podOf(t, `
containers:
- {name: prometheus, image: 'prom/prometheus:v3.15.0', args: [--config.file=/c/p.yml, `+args+`], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`), o)
			data := apply(t, once, []jsonpatch.Operation{c.foreign})
			ops, d := Inject(decode(t, data), granted(t, o.Policy, "monitoring"), o)
			if d.Reason != AlreadyInjected || (len(ops) > 0) != (c.why != "") {
				t.Fatalf("%+v, %d operations", d, len(ops))
			}
			if c.why == "" {
				return
			}
			after := decode(t, apply(t, data, ops))
			mark, _ := Marked(ops)
			a, err := sidecarconfig.Decode(encodedConfig(after))
			if err != nil || a.Version != sidecarconfig.VersionRelay || a.DeliveryOf(a.Destinations[0]) != policy.DeliveryRelay {
				t.Errorf("%+v, %v", a, err)
			}
			if mark.Why != c.why || mark.Version != sidecarconfig.VersionRelay || mark.Delivery["central"] != policy.DeliveryRelay {
				t.Errorf("mark %+v", mark)
			}
			if slices.Contains(after.Spec.Containers[0].Env, ownCredentials) {
				t.Error("the variable for sigv4 is still there")
			}
			if again, d := Inject(after, granted(t, o.Policy, "monitoring"), o); len(again) > 0 || d.Reason != AlreadyInjected {
				t.Errorf("again: %d operations, %s", len(again), d.Reason)
			}
			markStays(t, after, granted(t, o.Policy, "monitoring").Entitlement, o.Policy)
		})
	}
}
