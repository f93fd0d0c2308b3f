package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/ollama/ollama/api"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// checkOpenAIClient is a session with OpenAI's own client for Go, at a base URL.
func checkOpenAIClient(t *testing.T, base string, with *http.Client, release string) {
	t.Helper()
	client, ctx := openai.NewClient(option.WithBaseURL(base+"/v1"), option.WithAPIKey("none"), option.WithHTTPClient(with), option.WithMaxRetries(0)), t.Context()
	question := openai.ChatCompletionNewParams{Model: "chat", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Who are you?")}, Temperature: openai.Float(0)}

	var ids []string
	models := client.Models.ListAutoPaging(ctx)
	for models.Next() {
		ids = append(ids, models.Current().ID)
	}
	if models.Err() != nil || fmt.Sprint(ids) != "[chat tools vectors]" {
		t.Errorf("Models = %v, %v", ids, models.Err())
	}
	var response *http.Response
	said, err := client.Chat.Completions.New(ctx, question, option.WithResponseInto(&response))
	if err != nil || said.Choices[0].Message.Content != tinygguf.A.Sentence || said.Choices[0].FinishReason != "stop" || said.Usage.CompletionTokens == 0 {
		t.Fatalf("Chat = %+v, %v", said, err)
	}
	if by := response.Header.Get("weighbridge-release"); by != release {
		t.Errorf("Chat is by %q, want %q", by, release)
	}
	whole, pieces := streamed(t, client, question)
	if whole.Choices[0].Message.Content != tinygguf.A.Sentence || pieces < 3 {
		t.Errorf("NewStreaming = %+v in %d pieces", whole.Choices, pieces)
	}
	checkOpenAITools(t, client, question)

	text, err := client.Completions.New(ctx, openai.CompletionNewParams{Model: "chat", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("Once")}})
	if err != nil || text.Choices[0].Text != tinygguf.A.Sentence {
		t.Errorf("Completions = %+v, %v", text, err)
	}
	vectors, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "vectors", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"aaaa", "bbbb"}}})
	if err != nil || len(vectors.Data) != 2 || reflect.DeepEqual(vectors.Data[0].Embedding, vectors.Data[1].Embedding) {
		t.Errorf("Embeddings = %+v, %v", vectors, err)
	}
	var refused *openai.Error
	if _, err := client.Chat.Completions.New(ctx, question, option.WithJSONSet("chat_template", "x")); !errors.As(err, &refused) || refused.StatusCode != http.StatusBadRequest || refused.Param != "chat_template" {
		t.Errorf("Chat with a template = %v, want 400 that names it", err)
	}
	question.Model = "other"
	if _, err := client.Chat.Completions.New(ctx, question); !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden || refused.Code != "permission_denied" {
		t.Errorf("Chat with another model = %v, want 403", err)
	}
}

// checkOpenAITools has weather called, whole and as a stream, and gives its result back.
func checkOpenAITools(t *testing.T, client openai.Client, question openai.ChatCompletionNewParams) {
	t.Helper()
	question.Model = "tools"
	question.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
		Name: "weather", Parameters: openai.FunctionParameters{"type": "object", "properties": map[string]any{"city": map[string]string{"type": "string"}}},
	})}
	whole, err := client.Chat.Completions.New(t.Context(), question)
	if err != nil {
		t.Fatal(err)
	}
	pieced, _ := streamed(t, client, question)
	for _, got := range []*openai.ChatCompletion{whole, pieced} {
		calls := got.Choices[0].Message.ToolCalls
		if got.Choices[0].FinishReason != "tool_calls" || len(calls) != 1 || calls[0].Function.Name != "weather" || strings.ReplaceAll(calls[0].Function.Arguments, " ", "") != `{"city":"Rome"}` {
			t.Fatalf("Chat with tools = %+v", got.Choices)
		}
	}
	called := whole.Choices[0].Message
	question.Messages = append(question.Messages, called.ToParam(), openai.ToolMessage("sunny", called.ToolCalls[0].ID))
	question.ToolChoice.OfAuto = openai.String("none")
	if after, err := client.Chat.Completions.New(t.Context(), question); err != nil || after.Choices[0].Message.Content == "" || after.Usage.PromptTokens <= whole.Usage.PromptTokens {
		t.Errorf("Chat with the result = %+v, %v", after, err)
	}
}

// streamed is an answer as its pieces make it, and how many these were.
func streamed(t *testing.T, client openai.Client, question openai.ChatCompletionNewParams) (*openai.ChatCompletion, int) {
	t.Helper()
	var whole openai.ChatCompletionAccumulator
	pieces := 0
	stream := client.Chat.Completions.NewStreaming(t.Context(), question)
	defer stream.Close()
	for ; stream.Next(); pieces++ {
		if !whole.AddChunk(stream.Current()) {
			t.Errorf("piece %d does not go on with the others: %+v", pieces, stream.Current())
		}
	}
	if stream.Err() != nil || len(whole.Choices) != 1 {
		t.Fatalf("NewStreaming = %+v, %v", whole, stream.Err())
	}
	return &whole.ChatCompletion, pieces
}

// checkOllamaClient is a session with Ollama's own client for Go, at a base URL.
func checkOllamaClient(t *testing.T, at string, with *http.Client) {
	t.Helper()
	base, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	client, ctx := api.NewClient(base, with), t.Context()
	for _, stream := range []bool{false, true} {
		answer, pieces := "", 0
		err = client.Chat(ctx, &api.ChatRequest{Model: "chat", Messages: []api.Message{{Role: "user", Content: "Who are you?"}}, Stream: &stream}, func(r api.ChatResponse) error {
			answer += r.Message.Content
			pieces++
			return nil
		})
		if err != nil || answer != tinygguf.A.Sentence || stream != (pieces > 2) {
			t.Errorf("Chat() = %q in %d pieces, %v", answer, pieces, err)
		}
	}
	text := ""
	err = client.Generate(ctx, &api.GenerateRequest{Model: "chat", Prompt: "Who are you?"}, func(r api.GenerateResponse) error {
		text += r.Response
		return nil
	})
	if err != nil || text != tinygguf.A.Sentence {
		t.Errorf("Generate() = %q, %v", text, err)
	}
	checkOllamaTools(t, client)
	vectors, err := client.Embed(ctx, &api.EmbedRequest{Model: "vectors", Input: []string{"aaaa", "bbbb"}})
	if err != nil || len(vectors.Embeddings) != 2 || reflect.DeepEqual(vectors.Embeddings[0], vectors.Embeddings[1]) {
		t.Errorf("Embed() = %v, %v", vectors, err)
	}
	list, err := client.List(ctx)
	if err != nil || len(list.Models) != 3 || list.Models[0].Size < 1<<20 || len(list.Models[0].Digest) != 64 {
		t.Errorf("List() = %+v, %v", list, err)
	}
	if show, err := client.Show(ctx, &api.ShowRequest{Model: "vectors"}); err != nil || len(show.Capabilities) != 1 || show.Capabilities[0] != "embedding" {
		t.Errorf("Show() = %+v, %v", show, err)
	}
	if v, err := client.Version(ctx); err != nil || v != version {
		t.Errorf("Version() = %q, %v, want %q", v, err, version)
	}
	if err := client.Delete(ctx, &api.DeleteRequest{Model: "chat"}); err == nil {
		t.Error("Delete() = nil, want a refusal")
	}
}

// checkOllamaTools has weather called, and gives its result back.
func checkOllamaTools(t *testing.T, client *api.Client) {
	t.Helper()
	properties := api.NewToolPropertiesMap()
	properties.Set("city", api.ToolProperty{Type: api.PropertyType{"string"}})
	offering := &api.ChatRequest{Model: "tools", Messages: []api.Message{{Role: "user", Content: "Is it warm in Rome?"}}, Tools: api.Tools{
		{Type: "function", Function: api.ToolFunction{Name: "weather", Parameters: api.ToolFunctionParameters{Type: "object", Required: []string{"city"}, Properties: properties}}},
	}}
	ask := func() (whole api.Message) {
		err := client.Chat(t.Context(), offering, func(r api.ChatResponse) error {
			whole.Content += r.Message.Content
			whole.ToolCalls = append(whole.ToolCalls, r.Message.ToolCalls...)
			return nil
		})
		if err != nil {
			t.Fatalf("Chat() with tools: %v", err)
		}
		return whole
	}
	called := ask()
	if calls := called.ToolCalls; len(calls) != 1 || calls[0].Function.Name != "weather" || fmt.Sprint(calls[0].Function.Arguments.ToMap()) != "map[city:Rome]" {
		t.Fatalf("Chat() with tools = %+v", calls)
	}
	called.Role = "assistant"
	offering.Messages = append(offering.Messages, called, api.Message{Role: "tool", ToolName: "weather", Content: "sunny"})
	offering.Tools = nil
	if after := ask(); after.Content == "" {
		t.Errorf("Chat() with the result = %+v", after)
	}
}
