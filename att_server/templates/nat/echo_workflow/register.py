"""What the toolkit loads: see the entry point `nat.components` in pyproject.toml."""

import asyncio
import logging
from collections.abc import AsyncIterator

from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, register_function
from pydantic import Field

log = logging.getLogger(__name__)


class EchoConfig(FunctionBaseConfig, name="echo"):
    """The settings of `_type: echo` in configs/workflow.yml."""

    prefix: str = Field(default="", description="Stands before the text of every answer.")


@register_function(config_type=EchoConfig)
async def echo_function(config: EchoConfig, _builder: Builder) -> AsyncIterator[FunctionInfo]:
    """Makes the function; what stands behind the `yield` would run at the end."""

    async def echo(text: str, delay: float = 0.0) -> str:
        """Answers with the text, after `delay` seconds."""
        if not text:
            raise ValueError("there is no text to answer")
        if delay > 0:
            log.warning("The answer takes %g s.", delay)
            await asyncio.sleep(delay)
        log.info("Answered %d characters.", len(text))
        return config.prefix + text

    yield FunctionInfo.from_fn(echo, description=echo.__doc__)
