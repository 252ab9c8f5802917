package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// The search path of a container whose image sets none; the image's program lies in the root folder.
const defaultPath = "/:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment computes the variables of a container as a kubelet does.
func (k *kubelet) environment(pod *v1.Pod, container *v1.Container, podAddress string) (map[string]string, error) {
	variables := map[string]string{
		"PATH":                          defaultPath,
		"HOSTNAME":                      pod.Name,
		"KUBERNETES_SERVICE_HOST":       serviceAddress,
		"KUBERNETES_SERVICE_PORT":       "443",
		"KUBERNETES_SERVICE_PORT_HTTPS": "443",
		"KUBERNETES_PORT":               "tcp://" + serviceAddress + ":443",
	}
	for _, from := range container.EnvFrom {
		if err := k.environmentFrom(pod.Namespace, from, variables); err != nil {
			return nil, err
		}
	}
	lookup := expansion.MappingFuncFor(variables)
	for _, variable := range container.Env {
		value, set := expansion.Expand(variable.Value, lookup), true
		if variable.ValueFrom != nil {
			var err error
			value, set, err = k.valueFrom(pod, container, variable.ValueFrom, podAddress)
			if err != nil {
				return nil, fmt.Errorf("environment variable %s: %w", variable.Name, err)
			}
		}
		if set {
			variables[variable.Name] = value
		}
	}
	return variables, nil
}

// environmentFrom adds every key of a ConfigMap or Secret.
func (k *kubelet) environmentFrom(namespace string, from v1.EnvFromSource, into map[string]string) error {
	if source := from.ConfigMapRef; source != nil {
		object, err := k.configMaps.ConfigMaps(namespace).Get(source.Name)
		if optionalMissing(err, source.Optional) {
			return nil
		}
		if err != nil {
			return err
		}
		for key, value := range object.Data {
			into[from.Prefix+key] = value
		}
	}
	if source := from.SecretRef; source != nil {
		object, err := k.secrets.Secrets(namespace).Get(source.Name)
		if optionalMissing(err, source.Optional) {
			return nil
		}
		if err != nil {
			return err
		}
		for key, value := range object.Data {
			into[from.Prefix+key] = string(value)
		}
	}
	return nil
}

// valueFrom gives the value of one variable, and whether it is set at all.
func (k *kubelet) valueFrom(pod *v1.Pod, container *v1.Container, from *v1.EnvVarSource, podAddress string) (string, bool, error) {
	switch {
	case from.FieldRef != nil:
		value, err := k.field(pod, from.FieldRef.FieldPath, podAddress)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := resource.ExtractResourceValueByContainerNameAndNodeAllocatable(from.ResourceFieldRef, pod, container.Name, capacity())
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		source := from.ConfigMapKeyRef
		object, err := k.configMaps.ConfigMaps(pod.Namespace).Get(source.Name)
		if optionalMissing(err, source.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		value, ok := object.Data[source.Key]
		if !ok && !isTrue(source.Optional) {
			return "", false, fmt.Errorf("ConfigMap %s has no key %q", source.Name, source.Key)
		}
		return value, ok, nil
	case from.SecretKeyRef != nil:
		source := from.SecretKeyRef
		object, err := k.secrets.Secrets(pod.Namespace).Get(source.Name)
		if optionalMissing(err, source.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		value, ok := object.Data[source.Key]
		if !ok && !isTrue(source.Optional) {
			return "", false, fmt.Errorf("Secret %s has no key %q", source.Name, source.Key)
		}
		return string(value), ok, nil
	default:
		return "", false, fmt.Errorf("nodes of tests do not know this source: %v", from)
	}
}

// field gives the value of a field of the downward API.
func (k *kubelet) field(pod *v1.Pod, path, podAddress string) (string, error) {
	switch path {
	case "status.podIP", "status.podIPs":
		return podAddress, nil
	case "status.hostIP", "status.hostIPs":
		address, _ := k.address(pod.Spec.NodeName)
		return address, nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	default:
		return fieldpath.ExtractFieldPathAsString(pod, path)
	}
}

// commandOf gives the container's whole command; `variables` replace $(NAME) in it.
func commandOf(container *v1.Container, imageName string, variables map[string]string) []string {
	command := container.Command
	if len(command) == 0 {
		command = []string{"/" + imageName}
	}
	lookup := expansion.MappingFuncFor(variables)
	var expanded []string
	for _, word := range slices.Concat(command, container.Args) {
		expanded = append(expanded, expansion.Expand(word, lookup))
	}
	return expanded
}

func asList(variables map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		list = append(list, name+"="+variables[name])
	}
	return list
}

// imageName gives the last component of an image's name, without tag and digest.
func imageName(image string) string {
	name, _, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], "@")
	name, _, _ = strings.Cut(name, ":")
	return name
}

func optionalMissing(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && isTrue(optional)
}

func isTrue(value *bool) bool { return value != nil && *value }
