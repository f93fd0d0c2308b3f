package client_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/weighbridge/weighbridge/gateway/client"
	"github.com/weighbridge/weighbridge/gateway/identity"
)

// OpenAI's own client asks with our SVID.
func ExampleTransport() {
	if err := askByOpenAI(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func askByOpenAI(ctx context.Context) error {
	us, err := identity.Open(ctx, identity.Config{})
	if err != nil {
		return err
	}
	defer us.Close()
	with := &http.Client{Transport: client.NewTransport(us, client.Options{}.Authorize(us))}
	defer with.CloseIdleConnections()
	c := openai.NewClient(option.WithHTTPClient(with), option.WithBaseURL("https://gateway.example:8443/v1"), option.WithAPIKey("none"))
	answer, err := c.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{
		Model: "chat", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Who are you?")},
	})
	if err != nil {
		return err
	}
	fmt.Print(answer.Choices[0].Message.Content)
	return nil
}
