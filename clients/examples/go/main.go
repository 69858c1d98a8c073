// Streams one request's text from a scheduler, and reads on over the scheduler's restarts.
//
//	sh build.sh && ./generate "Once upon a time" [HOST:PORT] [MAX_TOKENS]
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	sage "sagecontrolplane/sage/controlplane/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := generate(ctx, argument(1, "Once upon a time"), argument(2, "127.0.0.1:50051"), argument(3, "32")); err != nil {
		fmt.Fprintf(os.Stderr, "error: %s (%s)\n", status.Convert(err).Message(), status.Code(err))
		os.Exit(1)
	}
}

func generate(ctx context.Context, prompt, address, maxTokens string) error {
	channel, err := grpc.Dial(address, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer channel.Close()
	most, err := strconv.ParseUint(maxTokens, 10, 32)
	if err != nil {
		return err
	}
	tokens, temperature := uint32(most), 0.0
	request := &sage.GenerateRequest{Spec: &sage.GenerationSpec{
		Prompt:     &sage.GenerationSpec_Text{Text: prompt},
		Sampling:   &sage.SamplingParams{MaxTokens: &tokens, Temperature: &temperature},
		Priority:   sage.Priority_PRIORITY_HIGH,
		NoInstance: sage.NoInstance_NO_INSTANCE_WAIT,
	}}
	return ReadOn(ctx, sage.NewInferenceServiceClient(channel), request, show)
}

func show(event *sage.GenerateResponse) {
	switch {
	case event.GetAccepted() != nil:
		fmt.Fprintf(os.Stderr, "[%s: %d prompt tokens]\n", event.GetAccepted().RequestId, event.GetAccepted().PromptTokens)
	case event.GetScheduled() != nil:
		decision := event.GetScheduled().Decision
		fmt.Fprintf(os.Stderr, "[on %s: %s]\n", decision.InstanceId, decision.Reasons[0])
	case event.GetTokens() != nil:
		fmt.Print(event.GetTokens().Text)
	case event.GetFinished() != nil:
		fmt.Println()
		fmt.Fprintf(os.Stderr, "[%s, %d tokens]\n", event.GetFinished().FinishReason, event.GetFinished().Usage.CompletionTokens)
	}
}

func argument(place int, otherwise string) string {
	if place < len(os.Args) {
		return os.Args[place]
	}
	return otherwise
}
