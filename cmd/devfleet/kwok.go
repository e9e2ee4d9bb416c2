// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/kwok/kustomize/stage/node/fast"
	heartbeat "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
	kwokclient "sigs.k8s.io/kwok/pkg/client/clientset/versioned"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	"sigs.k8s.io/kwok/pkg/utils/client"
	"sigs.k8s.io/yaml"
)

const nodeName = "node-0"

// isBad is the jq expression that tells a pod whose release is to look broken: by annotation, or by the tag of an image.
// A digest after the tag is cut off, since any digest may spell "bad".
const isBad = `[.metadata.annotations["devfleet.flotilla.dev/health"] == "bad",` +
	` (.spec.containers[].image | sub("@.*$"; "") | test(":[^/]*bad[^/]*$"))] | any`

//go:embed stages/pod-bad.yaml
var podBad string

//go:embed stages/pod-fail.yaml
var podFail string

//go:embed stages/pod-recovered.yaml
var podRecovered string

// stages are KWOK's for nodes and pods, held back from bad pods, and ours for pods that are bad or were. Health can be
// turned both ways while a pod runs, by its annotation.
func stages() (map[internalversion.StageResourceRef][]*internalversion.Stage, error) {
	grouped := map[internalversion.StageResourceRef][]*internalversion.Stage{}
	for _, s := range []struct{ yaml, bad string }{
		{yaml: fast.DefaultNodeInit},
		{yaml: heartbeat.DefaultNodeHeartbeatWithLease},
		{yaml: podfast.DefaultPodDelete},
		{yaml: podfast.DefaultPodReady, bad: "false"},
		{yaml: podfast.DefaultPodComplete, bad: "false"},
		{yaml: podBad, bad: "true"},
		{yaml: podFail, bad: "true"},
		{yaml: podRecovered, bad: "false"},
	} {
		stage, err := parseStage(s.yaml)
		if err != nil {
			return nil, fmt.Errorf("stage: %w", err)
		}
		if s.bad != "" {
			onlyIfBad(stage, s.bad)
		}
		grouped[stage.Spec.ResourceRef] = append(grouped[stage.Spec.ResourceRef], stage)
	}
	return grouped, nil
}

func parseStage(text string) (*internalversion.Stage, error) {
	var stage v1alpha1.Stage
	if err := yaml.UnmarshalStrict([]byte(text), &stage); err != nil {
		return nil, err
	}
	v1alpha1.SetObjectDefaults_Stage(&stage)
	return internalversion.ConvertToInternalStage(&stage)
}

// onlyIfBad narrows a stage to bad pods ("true") or to the others ("false").
func onlyIfBad(stage *internalversion.Stage, bad string) {
	stage.Spec.Selector.MatchExpressions = append(stage.Spec.Selector.MatchExpressions, internalversion.MatchExpression{
		JQ: &internalversion.SelectorJQ{Key: isBad, Operator: internalversion.SelectorOpIn, Values: []string{bad}},
	})
}

// startKwok plays the kubelet of the member's one node until the context ends.
func startKwok(ctx context.Context, f folder) error {
	conf, err := kwokConfig(f)
	if err != nil {
		return fmt.Errorf("kwok: %w", err)
	}
	if err := createNode(ctx, conf.TypedClient, f.name); err != nil {
		return fmt.Errorf("kwok: %w", err)
	}
	controller, err := controllers.NewController(conf)
	if err != nil {
		return fmt.Errorf("kwok: %w", err)
	}
	if err := controller.Start(ctx); err != nil {
		return fmt.Errorf("kwok: %w", err)
	}
	return nil
}

// kwokConfig leaves node leases off: they decide between several KWOKs, and one that was frozen would have lost its own.
func kwokConfig(f folder) (controllers.Config, error) {
	set, err := client.NewClientset("", f.kubeconfig())
	if err != nil {
		return controllers.Config{}, err
	}
	conf := controllers.Config{
		Clock:                      clock.RealClock{},
		ImpersonatingDynamicClient: set.ToImpersonatingDynamicClient(),
		ImpersonatingTypedClient:   set.ToImpersonatingTypedClient(),
		ManageSingleNode:           nodeName,
		CIDR:                       "10.64.0.0/16",
		NodeIP:                     "10.63.0.1",
		NodeName:                   nodeName,
		PodPlayStageParallelism:    4,
		NodePlayStageParallelism:   1,
		PodsOnNodeSyncParallelism:  1,
		ID:                         "devfleet",
	}
	restConfig, err := set.ToRESTConfig()
	if err != nil {
		return conf, err
	}
	if conf.DynamicClient, err = set.ToDynamicClient(); err != nil {
		return conf, err
	}
	if conf.RESTMapper, err = set.ToRESTMapper(); err != nil {
		return conf, err
	}
	if conf.RESTClient, err = rest.RESTClientFor(restConfig); err != nil {
		return conf, err
	}
	if conf.TypedClient, err = kubernetes.NewForConfig(restConfig); err != nil {
		return conf, err
	}
	if conf.TypedKwokClient, err = kwokclient.NewForConfig(restConfig); err != nil {
		return conf, err
	}
	conf.LocalStages, err = stages()
	return conf, err
}

func createNode(ctx context.Context, c kubernetes.Interface, member string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: nodeName,
		Labels: map[string]string{
			"kubernetes.io/hostname":       nodeName,
			"kubernetes.io/os":             "linux",
			"kubernetes.io/arch":           "amd64",
			"devfleet.flotilla.dev/member": member,
		},
	}}
	_, err := c.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("node %s: %w", nodeName, err)
	}
	return nil
}
