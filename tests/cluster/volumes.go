package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/volume/configmap"
	"k8s.io/kubernetes/pkg/volume/downwardapi"
	"k8s.io/kubernetes/pkg/volume/secret"
	"k8s.io/kubernetes/pkg/volume/util"
	"weir.internal/tests/cluster/container/spec"
)

// How often volumes are compared with what they show.
const volumeRefresh = 500 * time.Millisecond

type files = map[string]util.FileProjection

// The volumes of one pod, as folders of the host.
type volumes struct {
	kubelet *kubelet
	folder  string
	tokens  map[string]token
}

// A token of the pod's service account, and when to ask for the next.
type token struct {
	text  string
	renew time.Time
}

// write brings every volume up to date; pod is the newest object. Not for use by several goroutines at once.
func (v *volumes) write(ctx context.Context, pod *v1.Pod, podAddress string) error {
	for _, volume := range pod.Spec.Volumes {
		if err := v.writeOne(ctx, pod, &volume, podAddress); err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
	}
	return nil
}

func (v *volumes) path(name string) string { return filepath.Join(v.folder, name) }

func (v *volumes) writeOne(ctx context.Context, pod *v1.Pod, volume *v1.Volume, podAddress string) error {
	folder := v.path(volume.Name)
	group := fsGroup(pod)
	if volume.EmptyDir != nil {
		return emptyDir(folder, group)
	}
	content, err := v.content(ctx, pod, volume, podAddress)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	writer, err := util.NewAtomicWriter(folder, pod.Namespace+"/"+pod.Name)
	if err != nil {
		return err
	}
	return writer.Write(content, func(written string) error { return setGroup(filepath.Join(folder, written), group) })
}

// content gives the files of a volume that shows objects of the API.
func (v *volumes) content(ctx context.Context, pod *v1.Pod, volume *v1.Volume, podAddress string) (files, error) {
	switch {
	case volume.ConfigMap != nil:
		source := volume.ConfigMap
		return v.configMap(pod.Namespace, source.Name, source.Items, source.DefaultMode, source.Optional)
	case volume.Secret != nil:
		source := volume.Secret
		return v.secret(pod.Namespace, source.SecretName, source.Items, source.DefaultMode, source.Optional)
	case volume.DownwardAPI != nil:
		return v.downwardAPI(pod, volume.DownwardAPI.Items, volume.DownwardAPI.DefaultMode, podAddress)
	case volume.Projected != nil:
		all := files{}
		for i := range volume.Projected.Sources {
			some, err := v.projected(ctx, pod, volume, i, podAddress)
			if err != nil {
				return nil, err
			}
			maps.Copy(all, some)
		}
		return all, nil
	default:
		return nil, errors.New("nodes of tests have emptyDir, configMap, secret, downwardAPI and projected volumes only")
	}
}

func (v *volumes) projected(ctx context.Context, pod *v1.Pod, volume *v1.Volume, index int, podAddress string) (files, error) {
	source, mode := volume.Projected.Sources[index], volume.Projected.DefaultMode
	switch {
	case source.ConfigMap != nil:
		return v.configMap(pod.Namespace, source.ConfigMap.Name, source.ConfigMap.Items, mode, source.ConfigMap.Optional)
	case source.Secret != nil:
		return v.secret(pod.Namespace, source.Secret.Name, source.Secret.Items, mode, source.Secret.Optional)
	case source.DownwardAPI != nil:
		return v.downwardAPI(pod, source.DownwardAPI.Items, mode, podAddress)
	case source.ServiceAccountToken != nil:
		text, err := v.token(ctx, pod, fmt.Sprintf("%s/%d", volume.Name, index), source.ServiceAccountToken)
		// The user of the container must be able to read it, whoever that is.
		return files{source.ServiceAccountToken.Path: {Data: []byte(text), Mode: 0o644}}, err
	default:
		return nil, errors.New("nodes of tests project configMap, secret, downwardAPI and serviceAccountToken only")
	}
}

func (v *volumes) configMap(namespace, name string, items []v1.KeyToPath, mode *int32, optional *bool) (files, error) {
	object, err := v.kubelet.configMaps.ConfigMaps(namespace).Get(name)
	if optionalMissing(err, optional) {
		object, err = &v1.ConfigMap{}, nil
	}
	if err != nil {
		return nil, err
	}
	return configmap.MakePayload(items, object, mode, nil, isTrue(optional))
}

func (v *volumes) secret(namespace, name string, items []v1.KeyToPath, mode *int32, optional *bool) (files, error) {
	object, err := v.kubelet.secrets.Secrets(namespace).Get(name)
	if optionalMissing(err, optional) {
		object, err = &v1.Secret{}, nil
	}
	if err != nil {
		return nil, err
	}
	return secret.MakePayload(items, object, mode, nil, isTrue(optional))
}

func (v *volumes) downwardAPI(pod *v1.Pod, items []v1.DownwardAPIVolumeFile, mode *int32, podAddress string) (files, error) {
	for _, item := range items {
		if item.ResourceFieldRef != nil {
			return nil, fmt.Errorf("%s: nodes of tests have no resourceFieldRef in volumes", item.Path)
		}
	}
	seen := pod.DeepCopy()
	seen.Status.PodIP = podAddress
	return downwardapi.CollectData(items, seen, nil, mode, nil)
}

// token gives the token of a projected volume, a new one when the old one has lived four fifths of its time.
func (v *volumes) token(ctx context.Context, pod *v1.Pod, key string, source *v1.ServiceAccountTokenProjection) (string, error) {
	have, ok := v.tokens[key]
	if ok && time.Now().Before(have.renew) {
		return have.text, nil
	}
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	answer, err := v.kubelet.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		if ok {
			return have.text, nil // the old one is good for a while
		}
		return "", fmt.Errorf("token of service account %s: %w", pod.Spec.ServiceAccountName, err)
	}
	life := time.Until(answer.Status.ExpirationTimestamp.Time)
	v.tokens[key] = token{text: answer.Status.Token, renew: time.Now().Add(life * 4 / 5)}
	return answer.Status.Token, nil
}

// mounts gives the mounts of a container.
func (v *volumes) mounts(pod *v1.Pod, container *v1.Container) ([]spec.Mount, error) {
	var mounts []spec.Mount
	for _, mount := range container.VolumeMounts {
		source, writable := v.path(mount.Name), false
		for _, volume := range pod.Spec.Volumes {
			writable = writable || volume.Name == mount.Name && volume.EmptyDir != nil
		}
		if mount.SubPathExpr != "" {
			return nil, fmt.Errorf("volume mount %s: nodes of tests have no subPathExpr", mount.MountPath)
		}
		if mount.SubPath != "" {
			if strings.Contains(mount.SubPath, "..") {
				return nil, fmt.Errorf("volume mount %s: subPath %q leaves the volume", mount.MountPath, mount.SubPath)
			}
			source = filepath.Join(source, mount.SubPath)
			if _, err := os.Stat(source); os.IsNotExist(err) && writable {
				if err := emptyDir(source, fsGroup(pod)); err != nil {
					return nil, err
				}
			}
		}
		mounts = append(mounts, spec.Mount{Source: source, Target: path.Clean("/" + mount.MountPath), ReadOnly: mount.ReadOnly || !writable})
	}
	return mounts, nil
}

// emptyDir makes a folder that every user may write.
func emptyDir(folder string, group *int64) error {
	if _, err := os.Stat(folder); err == nil {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o777)
	if group != nil {
		if err := os.Chown(folder, -1, int(*group)); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	// Not by MkdirAll: the mask of this process would cut it.
	return os.Chmod(folder, mode)
}

// setGroup lets the pod's group read what was written.
func setGroup(folder string, group *int64) error {
	if group == nil {
		return nil
	}
	return filepath.WalkDir(folder, func(file string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(file, -1, int(*group)); err != nil || entry.Type()&os.ModeSymlink != 0 {
			return err
		}
		about, err := entry.Info()
		if err != nil {
			return err
		}
		more := os.FileMode(0o440)
		if entry.IsDir() {
			more = 0o550
		}
		return os.Chmod(file, about.Mode().Perm()|more)
	})
}

func fsGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}
