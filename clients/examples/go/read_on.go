package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sage "sagecontrolplane/sage/controlplane/v1"
)

const (
	pause  = 200 * time.Millisecond // before another call, where the scheduler does not say how long
	giveUp = time.Minute            // that no call was answered for
)

// ReadOn reads one request to its end over restarts of the scheduler: the recipe of docs/clients.md.
//
// It calls take with the events of the request, each token and each piece of text once, over as many calls as it takes.
// It returns how the request ended, or that no scheduler came back in time.
func ReadOn(ctx context.Context, client sage.InferenceServiceClient, request *sage.GenerateRequest, take func(*sage.GenerateResponse)) error {
	if request.RequestId == "" {
		request.RequestId, request.Fresh = newID(), true
	}
	characters := 0 // Unicode code points, as text_offset counts
	answered := time.Now()
	for {
		err := readCall(ctx, client, request, func(event *sage.GenerateResponse) {
			answered = time.Now()
			keep(request, event, &characters)
			take(event)
		})
		if err == nil {
			return nil
		}
		reason, wait := detailsOf(err)
		passes := reason == "RECOVERING" || (broken(err) && reason == "")
		if !passes || time.Since(answered) > giveUp {
			return err
		}
		request.Fresh = false // a scheduler may know it now
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readCall reads one call to its end; nil if the request ended well.
func readCall(ctx context.Context, client sage.InferenceServiceClient, request *sage.GenerateRequest, take func(*sage.GenerateResponse)) error {
	stream, err := client.Generate(ctx, request)
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		take(event)
	}
}

// keep remembers in request what the next call has to say, and drops text that came before.
func keep(request *sage.GenerateRequest, event *sage.GenerateResponse, characters *int) {
	if accepted := event.GetAccepted(); accepted != nil {
		request.Receipt = accepted.Receipt
	}
	if tokens := event.GetTokens(); tokens != nil {
		after := tokens.FirstIndex + uint32(len(tokens.TokenIds))
		request.AfterToken, request.AfterAttempt = &after, tokens.Attempt
		text := []rune(tokens.Text)[*characters-int(tokens.TextOffset):]
		tokens.Text, tokens.TextOffset = string(text), uint32(*characters)
		*characters += len(text)
	}
}

// broken tells whether the connection broke, for an error without a reason.  gRPC drops calls as a server stops: Canceled.
func broken(err error) bool {
	return status.Code(err) == codes.Unavailable || status.Code(err) == codes.Canceled
}

// detailsOf returns the reason that a scheduler gave, empty if the connection broke, and the time to wait.
func detailsOf(err error) (reason string, wait time.Duration) {
	wait = pause
	for _, detail := range status.Convert(err).Details() {
		switch found := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = found.Reason
		case *errdetails.RetryInfo:
			wait = found.RetryDelay.AsDuration()
		}
	}
	return reason, wait
}

func newID() string {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		panic(err)
	}
	return hex.EncodeToString(id)
}
