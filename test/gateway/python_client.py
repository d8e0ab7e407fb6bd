"""OpenAI's client for Python, through the gateway at argv[2]: the case argv[1]; asserts what it gets.

A case that cancels says `cancelled`, and stays until its stdin ends: the end of the process must
not be what closes its connection.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import openai
from openai import AsyncOpenAI, OpenAI

CASE, URL = sys.argv[1], sys.argv[2] + "/v1"
MESSAGES = [{"role": "user", "content": "one two three"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
# More than an engine makes while a test waits; see helpers.ts.
LONG_TOKENS = 400_000


def client() -> OpenAI:
    return OpenAI(base_url=URL, api_key="none", max_retries=0)


def whole_and_streamed() -> None:
    with client() as openai_client:
        assert [model.id for model in openai_client.models.list()] == ["sim"]
        request = {"model": "sim", "messages": MESSAGES}
        whole = openai_client.chat.completions.create(**request, max_tokens=3)
        assert whole.choices[0].message.content == " 1 2 3", whole
        stream = openai_client.chat.completions.create(
            **request, max_tokens=20, stream=True, stream_options={"include_usage": True}
        )
        text, usage = "", None
        for chunk in stream:
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usage = chunk.usage or usage
        assert len(text.split()) == 20, text
        assert usage is not None and usage.completion_tokens == 20, usage


def error() -> None:
    try:
        client().completions.create(model="other", prompt="x", max_tokens=1)
    except openai.NotFoundError as error:
        assert "does not exist" in str(error), error
    else:
        raise AssertionError("the engine's error did not arrive")


def tools() -> None:
    request = {"model": "sim", "messages": MESSAGES, "tools": [TOOL]}
    with client() as openai_client:
        whole = openai_client.chat.completions.create(**request)
        with openai_client.chat.completions.stream(**request) as stream:
            final = stream.get_final_completion()
    for answer in (whole, final):
        assert answer.choices[0].finish_reason == "tool_calls", answer
        (call,) = answer.choices[0].message.tool_calls or ()
        assert (call.id, call.function.name) == ("call-1", "weather"), call
        assert json.loads(call.function.arguments) == {"city": "Zürich"}, call


async def many() -> None:
    async with AsyncOpenAI(base_url=URL, api_key="none", max_retries=0) as openai_client:

        async def one(index: int) -> None:
            tokens = 4 + index % 5
            request = {"model": "sim", "messages": MESSAGES, "max_tokens": tokens}
            if index % 2 == 0:
                whole = await openai_client.chat.completions.create(**request)
                text = whole.choices[0].message.content or ""
            else:
                stream = await openai_client.chat.completions.create(**request, stream=True)
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert len(text.split()) == tokens, text

        await asyncio.gather(*(one(index) for index in range(200)))


def broken() -> None:
    stream = client().completions.create(model="sim", prompt="x", stream=True)
    try:
        for _ in stream:
            pass
    except openai.APIError as error:
        assert "broke off" in str(error), error
    else:
        raise AssertionError("the stream's error did not arrive")


async def lines() -> AsyncIterator[str]:
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line


async def cancel_stream() -> None:
    async with AsyncOpenAI(base_url=URL, api_key="none", max_retries=0) as openai_client:
        stream = await openai_client.completions.create(
            model="sim", prompt="x", max_tokens=LONG_TOKENS, stream=True
        )
        await anext(aiter(stream))
        async for _ in lines():
            await stream.close()
            print("cancelled", flush=True)


async def cancel_whole() -> None:
    async with AsyncOpenAI(base_url=URL, api_key="none", max_retries=0) as openai_client:
        request = openai_client.chat.completions.create(
            model="sim", messages=MESSAGES, max_tokens=LONG_TOKENS
        )
        task = asyncio.ensure_future(request)
        async for _ in lines():
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                print("cancelled", flush=True)


CASES = {
    "whole and streamed": whole_and_streamed,
    "an engine's error": error,
    "tools": tools,
    "200 at once": lambda: asyncio.run(many()),
    "a stream that breaks off": broken,
    "a cancelled stream": lambda: asyncio.run(cancel_stream()),
    "a cancelled whole answer": lambda: asyncio.run(cancel_whole()),
}
CASES[CASE]()
print(json.dumps({"ok": CASE, "openai": openai.__version__}))
