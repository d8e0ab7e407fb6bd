"""OpenAI's client for Python, through the gateway at argv[1]; asserts what it gets."""

import asyncio
import json
import sys

import openai
from openai import AsyncOpenAI, OpenAI

URL = sys.argv[1] + "/v1"
MESSAGES = [{"role": "user", "content": "one two three"}]


def whole_and_streamed() -> None:
    client = OpenAI(base_url=URL, api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["sim"]
    whole = client.chat.completions.create(model="sim", messages=MESSAGES, max_tokens=3)
    assert whole.choices[0].message.content == " 1 2 3", whole
    stream = client.chat.completions.create(
        model="sim",
        messages=MESSAGES,
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    for chunk in stream:
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        usage = chunk.usage or usage
    assert len(text.split()) == 20, text
    assert usage is not None and usage.completion_tokens == 20
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    tooled = client.chat.completions.create(
        model="sim", messages=MESSAGES, max_tokens=2, tools=[tool], tool_choice="auto"
    )
    assert tooled.choices[0].message.content == " 1 2"
    try:
        client.completions.create(model="other", prompt="x", max_tokens=1)
    except openai.NotFoundError as error:
        assert "does not exist" in str(error)
    else:
        raise AssertionError("the engine's error did not arrive")


def cancelled() -> None:
    client = OpenAI(base_url=URL, api_key="none", max_retries=0)
    stream = client.completions.create(model="sim", prompt="x", max_tokens=60_000, stream=True)
    next(iter(stream))
    stream.close()


async def many() -> None:
    async with AsyncOpenAI(base_url=URL, api_key="none", max_retries=0) as client:

        async def one(index: int) -> None:
            stream = await client.completions.create(
                model="sim", prompt="x", max_tokens=4 + index % 5, stream=True
            )
            text = "".join([chunk.choices[0].text async for chunk in stream])
            assert len(text.split()) == 4 + index % 5, text

        await asyncio.gather(*(one(index) for index in range(200)))


def broken() -> None:
    client = OpenAI(base_url=sys.argv[2] + "/v1", api_key="none", max_retries=0)
    stream = client.completions.create(model="sim", prompt="x", stream=True)
    try:
        for _ in stream:
            pass
    except openai.APIError as error:
        assert "broke off" in str(error), error
    else:
        raise AssertionError("the stream's error did not arrive")


whole_and_streamed()
cancelled()
asyncio.run(many())
broken()
print(json.dumps({"ok": True, "openai": openai.__version__}))
