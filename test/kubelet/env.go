package kubelet

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// environment returns the environment of a container, and its command as argv with $(NAME) expanded. They are
// resolved as in the kubelet (Kubelet.makeEnvironmentVariables): first envFrom, then env in order, where each
// value can use the earlier ones, then the API server's address. Variables of the image and of the runtime
// have the lowest priority and are not expanded.
func (p *Pod) environment(ctx context.Context, c *corev1.Container, image Image) (env, argv []string, err error) {
	vars := map[string]string{}
	service := p.serviceEnv()
	lookup := func(name string) (string, bool) {
		if v, ok := vars[name]; ok {
			return v, true
		}
		v, ok := service[name]
		return v, ok
	}
	for _, from := range c.EnvFrom {
		data, err := p.envSource(ctx, from)
		if err != nil {
			return nil, nil, fmt.Errorf("envFrom: %w", err)
		}
		for k, v := range data {
			vars[from.Prefix+k] = v
		}
	}
	for _, e := range c.Env {
		value, ok := expand(e.Value, lookup), true
		if e.Value == "" && e.ValueFrom != nil {
			if value, ok, err = p.envValue(ctx, e.ValueFrom, c); err != nil {
				return nil, nil, fmt.Errorf("env %s: %w", e.Name, err)
			}
		}
		if ok {
			vars[e.Name] = value
		}
	}
	expandAll := func(in []string) (out []string) {
		for _, s := range in {
			out = append(out, expand(s, lookup))
		}
		return out
	}
	argv = image.argv(expandAll(c.Command), expandAll(c.Args))

	all := map[string]string{
		"PATH":     "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":     "/",
		"HOSTNAME": p.hostname(),
	}
	for _, kv := range image.Env {
		k, v, _ := strings.Cut(kv, "=")
		all[k] = v
	}
	maps.Copy(all, service)
	maps.Copy(all, vars)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		env = append(env, k+"="+all[k])
	}
	return env, argv, nil
}

// serviceEnv returns the variables of the API server's Service, which every pod gets, whatever its
// enableServiceLinks.
func (p *Pod) serviceEnv() map[string]string {
	u, err := url.Parse(p.opts.APIServer)
	if p.opts.APIServer == "" || err != nil {
		return nil
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = "443"
	}
	addr := "tcp://" + net.JoinHostPort(host, port)
	return map[string]string{
		"KUBERNETES_SERVICE_HOST":       host,
		"KUBERNETES_SERVICE_PORT":       port,
		"KUBERNETES_SERVICE_PORT_HTTPS": port,
		"KUBERNETES_PORT":               addr,
	}
}

func (p *Pod) envSource(ctx context.Context, from corev1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		return p.configMapText(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
	case from.SecretRef != nil:
		return p.secretText(ctx, from.SecretRef.Name, from.SecretRef.Optional)
	}
	return nil, fmt.Errorf("neither a configMapRef nor a secretRef")
}

// configMapText returns a ConfigMap's data. An optional object that does not exist has none.
func (p *Pod) configMapText(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	cm, err := p.objects.configMap(ctx, name)
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	return cm.Data, nil
}

// secretText is [Pod.configMapText] for a Secret.
func (p *Pod) secretText(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	s, err := p.objects.secret(ctx, name)
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	data := make(map[string]string, len(s.Data))
	for k, v := range s.Data {
		data[k] = string(v)
	}
	return data, nil
}

// envValue resolves a variable's source. ok is false if an optional source is missing, so the variable is not
// set.
func (p *Pod) envValue(ctx context.Context, from *corev1.EnvVarSource, c *corev1.Container) (value string, ok bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = p.fieldValue(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = p.resourceValue(from.ResourceFieldRef, c)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := p.configMapText(ctx, ref.Name, ref.Optional)
		return keyOf("ConfigMap "+ref.Name, data, err, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := p.secretText(ctx, ref.Name, ref.Optional)
		return keyOf("secret "+ref.Name, data, err, ref.Key, ref.Optional)
	}
	return "", false, fmt.Errorf("valueFrom of a kind that is not supported")
}

// keyOf returns an object's value for a key, which must be there unless it is optional.
func keyOf(object string, data map[string]string, err error, key string, optional *bool) (string, bool, error) {
	value, ok := data[key]
	if err == nil && !ok && !isTrue(optional) {
		err = fmt.Errorf("%s has no key %s", object, key)
	}
	return value, ok, err
}

// unlessOptional returns nil if an optional object does not exist.
func unlessOptional(err error, optional *bool) error {
	if isTrue(optional) && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func isTrue(b *bool) bool { return b != nil && *b }
