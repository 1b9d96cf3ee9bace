package otherwebhooks

import (
	"maps"
	"slices"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// What meshes, policy engines and platforms make of a pod, injected or not, as their
// sources and manuals say.

// Istio adds its proxy, as a native sidecar or as a container, and has the kubelet ask it
// instead of the pod's containers.
func Istio(native bool) func(pod map[string]any) {
	return func(pod map[string]any) {
		if find(spec(pod), "initContainers", "istio-init") != nil {
			return
		}
		s := spec(pod)
		add(s, "volumes",
			map[string]any{"name": "istio-envoy", "emptyDir": map[string]any{"medium": "Memory"}},
			map[string]any{"name": "istio-data", "emptyDir": map[string]any{}},
			map[string]any{"name": "istio-token", "projected": map[string]any{"sources": []any{map[string]any{
				"serviceAccountToken": map[string]any{"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"},
			}}}})
		for _, c := range list(s, "containers") {
			for _, probe := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
				if p, is := c[probe].(map[string]any); is && p["httpGet"] != nil {
					p["httpGet"] = map[string]any{"path": "/app-health/" + c["name"].(string) + "/" + probe, "port": 15020}
				}
			}
		}
		proxy := map[string]any{
			"name": "istio-proxy", "image": "registry.example.com/istio/proxyv2:1.27.0", "args": []any{"proxy", "sidecar"},
			"securityContext": restricted(1337), "resources": small(),
			"readinessProbe": map[string]any{"httpGet": map[string]any{"path": "/healthz/ready", "port": 15021}},
			"volumeMounts": []any{
				map[string]any{"name": "istio-envoy", "mountPath": "/etc/istio/proxy"},
				map[string]any{"name": "istio-data", "mountPath": "/var/lib/istio/data"},
				map[string]any{"name": "istio-token", "mountPath": "/var/run/secrets/tokens"},
			},
		}
		start := map[string]any{
			"name": "istio-init", "image": "registry.example.com/istio/proxyv2:1.27.0", "args": []any{"istio-iptables"},
			"resources": small(),
			"securityContext": map[string]any{
				"capabilities": map[string]any{"add": []any{"NET_ADMIN", "NET_RAW"}, "drop": []any{"ALL"}}, "runAsUser": 0, "runAsNonRoot": false,
			},
		}
		if native {
			proxy["restartPolicy"] = "Always"
			first(s, "initContainers", start, proxy)
			return
		}
		first(s, "containers", proxy)
		add(s, "initContainers", start)
	}
}

// Linkerd adds its proxy, as a native sidecar or as the first of the containers.
func Linkerd(native bool) func(pod map[string]any) {
	return func(pod map[string]any) {
		if find(spec(pod), "initContainers", "linkerd-init") != nil {
			return
		}
		s := spec(pod)
		add(s, "volumes",
			map[string]any{"name": "linkerd-proxy-init-xtables-lock", "emptyDir": map[string]any{}},
			map[string]any{"name": "linkerd-identity-end-entity", "emptyDir": map[string]any{"medium": "Memory"}})
		proxy := map[string]any{
			"name": "linkerd-proxy", "image": "registry.example.com/linkerd/proxy:stable",
			"securityContext": restricted(2102), "resources": small(),
			"livenessProbe": map[string]any{"httpGet": map[string]any{"path": "/live", "port": 4191}},
			"lifecycle":     map[string]any{"postStart": map[string]any{"exec": map[string]any{"command": []any{"/usr/lib/linkerd/linkerd-await"}}}},
			"volumeMounts":  []any{map[string]any{"name": "linkerd-identity-end-entity", "mountPath": "/var/run/linkerd/identity/end-entity"}},
		}
		start := map[string]any{
			"name": "linkerd-init", "image": "registry.example.com/linkerd/proxy-init:v2", "resources": small(),
			"securityContext": map[string]any{
				"allowPrivilegeEscalation": false, "capabilities": map[string]any{"add": []any{"NET_ADMIN", "NET_RAW"}},
				"runAsNonRoot": true, "runAsUser": 65534,
			},
			"volumeMounts": []any{map[string]any{"name": "linkerd-proxy-init-xtables-lock", "mountPath": "/run"}},
		}
		add(s, "initContainers", start)
		if native {
			proxy["restartPolicy"] = "Always"
			add(s, "initContainers", proxy)
			return
		}
		first(s, "containers", proxy)
	}
}

// SCC does what OpenShift's admission does for a security context constraint: it gives
// what the pod leaves open. user is the first of the namespace's range, 0: any user.
func SCC(user int, seccomp bool, drop ...any) func(pod map[string]any) {
	return func(pod map[string]any) {
		s := spec(pod)
		context := member(s, "securityContext")
		context["seLinuxOptions"] = map[string]any{"level": "s0:c26,c5"}
		if user != 0 && context["fsGroup"] == nil {
			context["fsGroup"] = user
		}
		if seccomp && context["seccompProfile"] == nil {
			context["seccompProfile"] = map[string]any{"type": "RuntimeDefault"}
		}
		for _, c := range slices.Concat(list(s, "initContainers"), list(s, "containers")) {
			own := member(c, "securityContext")
			if user != 0 && own["runAsUser"] == nil && context["runAsUser"] == nil {
				own["runAsUser"] = user
			}
			capabilities := member(own, "capabilities")
			dropped, _ := capabilities["drop"].([]any)
			for _, name := range drop {
				if !slices.Contains(dropped, name) {
					dropped = append(slices.Clone(dropped), name)
				}
			}
			capabilities["drop"] = dropped
			if seccomp {
				own["allowPrivilegeEscalation"] = false
			}
		}
	}
}

// Mutations does what policy engines are often told to do to every pod: images of a
// mirror, a default security context, sizes, pull secrets, labels.
func Mutations(pod map[string]any) {
	s := spec(pod)
	context := member(s, "securityContext")
	for name, value := range map[string]any{"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000} {
		if context[name] == nil {
			context[name] = value
		}
	}
	for _, c := range slices.Concat(list(s, "initContainers"), list(s, "containers")) {
		image := c["image"].(string)
		for i := range image {
			if image[i] == '/' {
				c["image"] = "registry.example.com" + image[i:]
				break
			}
		}
		own := member(c, "securityContext")
		own["allowPrivilegeEscalation"] = false
		if c["resources"] == nil || len(c["resources"].(map[string]any)) == 0 {
			c["resources"] = small()
		}
	}
	for _, v := range list(s, "volumes") {
		if dir, is := v["emptyDir"].(map[string]any); is && dir["sizeLimit"] == nil {
			dir["sizeLimit"] = "1Gi"
		}
	}
	s["imagePullSecrets"] = []any{map[string]any{"name": "mirror"}}
	s["dnsConfig"] = map[string]any{"options": []any{map[string]any{"name": "ndots", "value": "2"}}}
}

// PodIdentity does what EKS's webhook does: variables, a token and its mount for every container.
func PodIdentity(pod map[string]any) {
	const name, dir = "eks-pod-identity-token", "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"
	s := spec(pod)
	if find(s, "volumes", name) != nil {
		return
	}
	add(s, "volumes", map[string]any{"name": name, "projected": map[string]any{"sources": []any{map[string]any{
		"serviceAccountToken": map[string]any{"audience": "pods.eks.amazonaws.com", "expirationSeconds": 86400, "path": name},
	}}}})
	for _, c := range slices.Concat(list(s, "initContainers"), list(s, "containers")) {
		add(c, "env",
			map[string]any{"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"},
			map[string]any{"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "value": dir + "/" + name})
		add(c, "volumeMounts", map[string]any{"name": name, "mountPath": dir, "readOnly": true})
	}
}

// Autopilot does what GKE Autopilot does where pods may not burst: a default profile, and
// limits that are the requests.
func Autopilot(pod map[string]any) {
	s := spec(pod)
	if context := member(s, "securityContext"); context["seccompProfile"] == nil {
		context["seccompProfile"] = map[string]any{"type": "RuntimeDefault"}
	}
	for _, c := range slices.Concat(list(s, "initContainers"), list(s, "containers")) {
		resources := member(c, "resources")
		requests := maps.Clone(member(resources, "requests"))
		for name, value := range map[string]any{"cpu": "50m", "memory": "52Mi", "ephemeral-storage": "1Gi"} {
			if requests[name] == nil {
				requests[name] = value
			}
		}
		resources["requests"], resources["limits"] = requests, maps.Clone(requests)
		capabilities := member(member(c, "securityContext"), "capabilities")
		if c["name"] != sidecarconfig.ContainerName {
			capabilities["drop"] = []any{"NET_RAW"}
		}
	}
	s["tolerations"] = []any{map[string]any{"key": "kubernetes.io/arch", "operator": "Equal", "value": "amd64"}}
}

// Fargate does what EKS does for a pod of a Fargate profile.
func Fargate(pod map[string]any) {
	spec(pod)["schedulerName"] = "fargate-scheduler"
	member(member(pod, "metadata"), "annotations")["Logging"] = "LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND"
}

func restricted(user int) map[string]any {
	return map[string]any{
		"allowPrivilegeEscalation": false, "capabilities": map[string]any{"drop": []any{"ALL"}},
		"readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": user, "runAsGroup": user,
	}
}

func small() map[string]any {
	return map[string]any{
		"requests": map[string]any{"cpu": "10m", "memory": "64Mi"}, "limits": map[string]any{"cpu": "200m", "memory": "128Mi"},
	}
}

// member returns a member that is an object, and makes it where there is none.
func member(in map[string]any, name string) map[string]any {
	if object, is := in[name].(map[string]any); is {
		return object
	}
	object := map[string]any{}
	in[name] = object
	return object
}

func items(in map[string]any, name string) []any {
	all, _ := in[name].([]any)
	return slices.Clone(all)
}

func add(in map[string]any, name string, more ...any) { in[name] = append(items(in, name), more...) }

func first(in map[string]any, name string, more ...any) {
	in[name] = append(more, items(in, name)...)
}
