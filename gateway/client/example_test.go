package client_test

import (
	"context"
	"fmt"
	"log"

	"github.com/weighbridge/weighbridge/gateway/client"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// The identity comes from the Workload API at SPIFFE_ENDPOINT_SOCKET.
func Example() {
	if err := ask(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func ask(ctx context.Context) error {
	c, err := client.Dial(ctx, "gateway.example:9443", client.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	stream, err := c.Chat(ctx, &pb.ChatRequest{Model: "chat", Messages: []*pb.Message{{Role: "user", Content: "Who are you?"}}})
	if err != nil {
		return err
	}
	for text, err := range client.Texts(stream) {
		if err != nil {
			return err
		}
		fmt.Print(text)
	}
	return nil
}
