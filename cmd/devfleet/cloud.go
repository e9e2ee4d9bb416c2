// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// provisioner names the storage class's provisioner; the controller manager writes it on claims that are for us.
const provisioner = "devfleet.flotilla.dev/volumes"

// cloud hands out what a cloud provider would: addresses for load balancers, volumes for claims. Without it, whatever
// waits for one of these waits for ever.
type cloud struct {
	client kubernetes.Interface
}

// startCloud watches until the context ends. What fails is tried again at the next resync.
func startCloud(ctx context.Context, f folder) error {
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig())
	if err != nil {
		return fmt.Errorf("cloud: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("cloud: %w", err)
	}
	c := cloud{client: client}
	if err := c.createStorageClass(ctx); err != nil {
		return fmt.Errorf("cloud: %w", err)
	}
	factory := informers.NewSharedInformerFactory(client, 10*time.Second)
	core := factory.Core().V1()
	for _, err := range []error{
		handle(ctx, core.Services().Informer(), c.giveAddress),
		handle(ctx, core.PersistentVolumeClaims().Informer(), c.giveVolume),
		handle(ctx, core.PersistentVolumes().Informer(), c.takeVolume),
	} {
		if err != nil {
			return fmt.Errorf("cloud: %w", err)
		}
	}
	factory.Start(ctx.Done())
	return nil
}

// handle calls do with every object of the informer's kind now, at each change and at each resync.
func handle[T metav1.Object](ctx context.Context, informer cache.SharedInformer, do func(context.Context, T) error) error {
	try := func(object any) {
		o, ok := object.(T)
		if !ok || o.GetDeletionTimestamp() != nil {
			return
		}
		if err := do(ctx, o); err != nil {
			klog.ErrorS(err, "Cloud", "object", klog.KObj(o))
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    try,
		UpdateFunc: func(_, object any) { try(object) },
	})
	return err
}

// createStorageClass makes claims that name no class bind, as they do on most clusters.
func (c cloud) createStorageClass(ctx context.Context) error {
	class := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: "devfleet", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}},
		Provisioner: provisioner,
	}
	_, err := c.client.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("storage class %s: %w", class.Name, err)
	}
	return nil
}

// giveAddress uses the service's own address, which is unique in the cluster.
func (c cloud) giveAddress(ctx context.Context, s *corev1.Service) error {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer || len(s.Status.LoadBalancer.Ingress) > 0 {
		return nil
	}
	s = s.DeepCopy()
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: s.Spec.ClusterIP}}
	_, err := c.client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{})
	return err
}

// giveVolume creates a volume for a claim; the controller manager binds the two.
func (c cloud) giveVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.Annotations["volume.kubernetes.io/storage-provisioner"] != provisioner {
		return nil
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "pvc-" + string(claim.UID),
			Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			StorageClassName:              ptr.Deref(claim.Spec.StorageClassName, ""),
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			// Nothing ever mounts it: the node is not real.
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/volumes/" + string(claim.UID)}},
		},
	}
	_, err := c.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// takeVolume deletes a volume of ours whose claim is gone.
func (c cloud) takeVolume(ctx context.Context, v *corev1.PersistentVolume) error {
	if v.Annotations["pv.kubernetes.io/provisioned-by"] != provisioner || v.Status.Phase != corev1.VolumeReleased {
		return nil
	}
	err := c.client.CoreV1().PersistentVolumes().Delete(ctx, v.Name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
