package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	clientset "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// applyCRDs creates every CustomResourceDefinition of the folder and waits until the API serves them.
func applyCRDs(ctx context.Context, config *rest.Config, folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no *.yaml in %s", folder)
	}
	// This API has no protobuf for what is within the definitions.
	config = rest.CopyConfig(config)
	config.ContentType = "application/json"
	client, err := clientset.NewForConfig(config)
	if err != nil {
		return err
	}
	definitions := client.ApiextensionsV1().CustomResourceDefinitions()
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var definition apiextensions.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &definition); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if _, err := definitions.Create(ctx, &definition, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		names = append(names, definition.Name)
	}
	for _, name := range names {
		for {
			definition, err := definitions.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return fmt.Errorf("definition %s: %w", name, err)
			}
			if established(definition) {
				break
			}
			if !sleep(ctx, 50*time.Millisecond) {
				return fmt.Errorf("definition %s is not established: %w", name, ctx.Err())
			}
		}
	}
	return nil
}

func established(definition *apiextensions.CustomResourceDefinition) bool {
	for _, condition := range definition.Status.Conditions {
		if condition.Type == apiextensions.Established && condition.Status == apiextensions.ConditionTrue {
			return true
		}
	}
	return false
}
