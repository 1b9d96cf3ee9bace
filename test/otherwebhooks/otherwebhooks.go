// Package otherwebhooks has what the admission webhooks of other projects, and older API
// types, make of a pod that ampbridge has injected.
package otherwebhooks

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// Outcome is what becomes of a changed pod when ampbridge's webhook is called again.
type Outcome string

// Outcomes.
const (
	// Restored: the pod is as ampbridge had made it.
	Restored Outcome = "restored"
	// Kept: nothing of ampbridge's was harmed, and the pod stays as it is.
	Kept Outcome = "kept"
	// Injected: the pod has a whole injection, and what others added to it.
	Injected Outcome = "injected"
	// TakenBack: the pod is as it was before ampbridge.
	TakenBack Outcome = "taken back"
	// Lost: what is gone cannot be known. The pod stays as it is, with a warning.
	Lost Outcome = "lost"
)

// Change is what a webhook does to an injected pod, as decoded by encoding/json.
type Change struct {
	Name string
	Do   func(pod map[string]any)
	Want Outcome
}

// Changes are made for a pod with one sidecar config, whose first container is Prometheus.
func Changes() []Change {
	return []Change{
		{"restartPolicy dropped by older types", without("restartPolicy"), Restored},
		{"restartPolicy dropped, and the pod's other sidecars too", func(pod map[string]any) {
			for _, c := range list(spec(pod), "initContainers") {
				delete(c, "restartPolicy")
			}
		}, Restored},
		{"startup probe removed", without("startupProbe"), Restored},
		{"liveness probe removed", without("livenessProbe"), Restored},
		{"probes and restartPolicy removed", without("startupProbe", "livenessProbe", "restartPolicy"), Restored},
		{"probe rewritten", func(pod map[string]any) {
			Sidecar(pod)["startupProbe"] = map[string]any{"httpGet": map[string]any{"port": 15020, "path": "/app-health"}}
		}, Restored},
		{"security context removed", without("securityContext"), Restored},
		{"made root", security("runAsUser", 0, "runAsNonRoot", false), Restored},
		{"another user", security("runAsUser", 1337, "runAsGroup", 1337), Restored},
		{"capabilities added", security("capabilities", map[string]any{"drop": []any{"ALL"}, "add": []any{"NET_BIND_SERVICE"}}), Restored},
		{"privileged", security("privileged", true, "allowPrivilegeEscalation", true), Restored},
		{"root file system made writable", security("readOnlyRootFilesystem", false), Restored},
		{"seccomp profile added", security("seccompProfile", map[string]any{"type": "RuntimeDefault"}), Kept},
		{"moved behind the init containers", func(pod map[string]any) {
			all := spec(pod)["initContainers"].([]any)
			spec(pod)["initContainers"] = append(slices.Clone(all[1:]), all[0])
		}, Restored},
		{"moved among the containers", func(pod map[string]any) {
			c := Sidecar(pod)
			if c == nil {
				return
			}
			delete(c, "restartPolicy")
			removeSidecar(pod)
			spec(pod)["containers"] = append(spec(pod)["containers"].([]any), c)
		}, Restored},
		{"a native proxy before it", func(pod map[string]any) {
			proxy := map[string]any{"name": "istio-proxy", "image": "istio/proxyv2", "restartPolicy": "Always"}
			spec(pod)["initContainers"] = append([]any{proxy}, spec(pod)["initContainers"].([]any)...)
		}, Kept},
		{"a classic init container before it", func(pod map[string]any) {
			first := map[string]any{"name": "linkerd-init", "image": "linkerd/proxy-init"}
			spec(pod)["initContainers"] = append([]any{first}, spec(pod)["initContainers"].([]any)...)
		}, Kept},
		{"source mount removed", unmounted(sidecarconfig.SourceDir), Restored},
		{"target mount removed", unmounted(sidecarconfig.TargetDir), Restored},
		{"credentials mount removed", unmounted(sidecarconfig.CredentialsDir), Restored},
		{"all mounts removed", without("volumeMounts"), Restored},
		{"target mounted read-only", func(pod map[string]any) {
			for _, m := range list(Sidecar(pod), "volumeMounts") {
				m["readOnly"] = true
			}
		}, Restored},
		{"sidecar config removed", func(pod map[string]any) { remove(Sidecar(pod), "env", sidecarconfig.Variable) }, Restored},
		{"pod's name removed from the variables", func(pod map[string]any) {
			remove(Sidecar(pod), "env", sidecarconfig.PodNameVariable)
		}, Restored},
		{"all variables removed", without("env"), Restored},
		{"command replaced", func(pod map[string]any) { Sidecar(pod)["command"] = []any{"/vault/vault-env"} }, Restored},
		{"image of a mirror", func(pod map[string]any) { Sidecar(pod)["image"] = "mirror.example.com/config-sidecar:1" }, Kept},
		{"a token and variables added", func(pod map[string]any) {
			volume := map[string]any{"name": "aws-iam-token", "projected": map[string]any{"sources": []any{
				map[string]any{"serviceAccountToken": map[string]any{"audience": "sts.amazonaws.com", "path": "token"}},
			}}}
			spec(pod)["volumes"] = append(spec(pod)["volumes"].([]any), volume)
			c := Sidecar(pod)
			c["volumeMounts"] = append(c["volumeMounts"].([]any), map[string]any{"name": "aws-iam-token", "mountPath": "/var/run/x"})
			c["env"] = append(c["env"].([]any), map[string]any{"name": "AWS_ROLE_ARN_OTHER", "value": "x"})
		}, Kept},
		{"a mount added and restartPolicy dropped", func(pod map[string]any) {
			c := Sidecar(pod)
			delete(c, "restartPolicy")
			c["volumeMounts"] = append(c["volumeMounts"].([]any), map[string]any{"name": sidecarconfig.VolumeNoAPIToken, "mountPath": "/x"})
		}, Injected},
		{"credentials volume renamed", renamed(sidecarconfig.VolumeCredentials, true), Restored},
		{"source volume renamed", renamed(sidecarconfig.VolumeSource, true), Restored},
		{"source volume renamed, its mounts not", renamed(sidecarconfig.VolumeSource, false), Restored},
		{"token volume renamed, its mounts not", renamed(sidecarconfig.VolumeToken, false), Injected},
		{"credentials volume removed", func(pod map[string]any) { remove(spec(pod), "volumes", sidecarconfig.VolumeCredentials) }, Restored},
		{"volume and its mount removed", func(pod map[string]any) {
			remove(spec(pod), "volumes", sidecarconfig.VolumeNoAPIToken)
			remove(Sidecar(pod), "volumeMounts", sidecarconfig.VolumeNoAPIToken)
		}, Restored},
		{"credentials volume put on disk", func(pod map[string]any) {
			find(spec(pod), "volumes", sidecarconfig.VolumeCredentials)["emptyDir"] = map[string]any{}
		}, Restored},
		{"annotation removed", func(pod map[string]any) {
			delete(pod["metadata"].(map[string]any)["annotations"].(map[string]any), "ampbridge.io/injected")
		}, Restored},
		{"all annotations removed", func(pod map[string]any) { delete(pod["metadata"].(map[string]any), "annotations") }, Injected},
		{"sidecar removed", removeSidecar, Restored},
		{"Prometheus's mount of the credentials removed", func(pod map[string]any) {
			remove(Prometheus(pod), "volumeMounts", sidecarconfig.VolumeCredentials)
		}, Restored},
		{"restartPolicy dropped, and a volume over the credentials", func(pod map[string]any) {
			delete(Sidecar(pod), "restartPolicy")
			c := Prometheus(pod)
			remove(c, "volumeMounts", sidecarconfig.VolumeCredentials)
			c["volumeMounts"] = append(c["volumeMounts"].([]any), map[string]any{"name": "cover", "mountPath": "/var/run/secrets/ampbridge.io"})
			spec(pod)["volumes"] = append(spec(pod)["volumes"].([]any), map[string]any{"name": "cover", "emptyDir": map[string]any{}})
		}, TakenBack},
		{"sidecar removed, and Prometheus behind a shell", func(pod map[string]any) {
			removeSidecar(pod)
			Prometheus(pod)["command"] = []any{"/bin/sh", "-c", "exec /wait-for-mesh; exec prometheus"}
		}, TakenBack},
		{"privileged, with what the API server refuses beside it", security("privileged", true), Restored},
		{"a capability that the API server refuses beside allowPrivilegeEscalation", security(
			"capabilities", map[string]any{"drop": []any{"ALL"}, "add": []any{"SYS_ADMIN"}}), Restored},
		{"more capabilities dropped by name", security("capabilities", map[string]any{"drop": []any{"ALL", "KILL", "MKNOD"}}), Kept},
		{"user left out, and root forbidden", func(pod map[string]any) {
			delete(Sidecar(pod)["securityContext"].(map[string]any), "runAsUser")
		}, Restored},
		{"another probe merged into the startup probe", func(pod map[string]any) {
			Sidecar(pod)["startupProbe"].(map[string]any)["httpGet"] = map[string]any{"port": 15020, "path": "/app-health"}
		}, Restored},
		{"another probe merged into the liveness probe", func(pod map[string]any) {
			Sidecar(pod)["livenessProbe"].(map[string]any)["tcpSocket"] = map[string]any{"port": 15020}
		}, Restored},
		{"a mount added where the sidecar has one", func(pod map[string]any) {
			c := Sidecar(pod)
			c["volumeMounts"] = append(c["volumeMounts"].([]any), map[string]any{
				"name": sidecarconfig.VolumeCredentials, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true,
			})
		}, Restored},
		{"requests raised above the limits", func(pod map[string]any) {
			Sidecar(pod)["resources"] = map[string]any{
				"requests": map[string]any{"cpu": "2", "memory": "4Gi"}, "limits": map[string]any{"cpu": "1", "memory": "256Mi"},
			}
		}, Restored},
		{"copied among the containers", func(pod map[string]any) {
			c := maps.Clone(Sidecar(pod))
			if c == nil {
				return
			}
			delete(c, "restartPolicy")
			spec(pod)["containers"] = append(spec(pod)["containers"].([]any), c)
		}, Restored},
		{"every list in another order", func(pod map[string]any) {
			for _, member := range []string{"initContainers", "volumes"} {
				items, _ := spec(pod)[member].([]any)
				items = slices.Clone(items)
				slices.Reverse(items)
				spec(pod)[member] = items
			}
			delete(Sidecar(pod), "restartPolicy")
		}, Injected},
		{"credentials and token volumes renamed, and restartPolicy dropped", func(pod map[string]any) {
			renamed(sidecarconfig.VolumeCredentials, true)(pod)
			renamed(sidecarconfig.VolumeToken, true)(pod)
			delete(Sidecar(pod), "restartPolicy")
		}, Injected},
		{"every image rewritten to a name that says nothing, and restartPolicy dropped", func(pod map[string]any) {
			for _, member := range []string{"initContainers", "containers"} {
				for i, c := range list(spec(pod), member) {
					c["image"] = fmt.Sprintf("cache.example.com/mirrored/%d@sha256:%064d", i, 0)
				}
			}
			delete(Sidecar(pod), "restartPolicy")
		}, Injected},
		{"configuration's volume removed", func(pod map[string]any) { remove(spec(pod), "volumes", sidecarconfig.VolumeSource) }, Lost},
	}
}

// Sidecar returns the config sidecar.
func Sidecar(pod map[string]any) map[string]any {
	return find(spec(pod), "initContainers", sidecarconfig.ContainerName)
}

// Prometheus returns the container that injection gave the credentials.
func Prometheus(pod map[string]any) map[string]any {
	for _, c := range list(spec(pod), "containers") {
		if find(c, "volumeMounts", sidecarconfig.VolumeCredentials) != nil {
			return c
		}
	}
	return nil
}

func spec(pod map[string]any) map[string]any { return pod["spec"].(map[string]any) }

func list(in map[string]any, member string) []map[string]any {
	items, _ := in[member].([]any)
	all := make([]map[string]any, len(items))
	for i := range items {
		all[i] = items[i].(map[string]any)
	}
	return all
}

func find(in map[string]any, member, name string) map[string]any {
	for _, item := range list(in, member) {
		if item["name"] == name {
			return item
		}
	}
	return nil
}

func remove(in map[string]any, member, name string) {
	in[member] = slices.DeleteFunc(slices.Clone(in[member].([]any)), func(item any) bool { return item.(map[string]any)["name"] == name })
}

func removeSidecar(pod map[string]any) {
	remove(spec(pod), "initContainers", sidecarconfig.ContainerName)
}

// without removes members of the sidecar.
func without(members ...string) func(map[string]any) {
	return func(pod map[string]any) {
		for _, m := range members {
			delete(Sidecar(pod), m)
		}
	}
}

// security sets members of the sidecar's security context.
func security(pairs ...any) func(map[string]any) {
	return func(pod map[string]any) {
		for i := 0; i < len(pairs); i += 2 {
			Sidecar(pod)["securityContext"].(map[string]any)[pairs[i].(string)] = pairs[i+1]
		}
	}
}

// unmounted removes a mount of the sidecar.
func unmounted(path string) func(map[string]any) {
	return func(pod map[string]any) {
		c := Sidecar(pod)
		c["volumeMounts"] = slices.DeleteFunc(c["volumeMounts"].([]any), func(m any) bool { return m.(map[string]any)["mountPath"] == path })
	}
}

// renamed renames a volume, with or without its mounts.
func renamed(name string, mounts bool) func(map[string]any) {
	return func(pod map[string]any) {
		find(spec(pod), "volumes", name)["name"] = "tenant-" + name
		for _, member := range []string{"initContainers", "containers"} {
			for _, c := range list(spec(pod), member) {
				if m := find(c, "volumeMounts", name); m != nil && mounts {
					m["name"] = "tenant-" + name
				}
			}
		}
	}
}
