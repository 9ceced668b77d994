"""Exceptions of many libraries, each raised as the library raises it."""

from __future__ import annotations

import os

NOWHERE = "127.0.0.1:1"


class DemandingError(Exception):
    def __init__(self, *, code, payload):
        super().__init__(f"code {code}")
        self.code, self.payload = code, payload


def _raise(error):
    raise error


def _ask(find):
    import requests

    with requests.Session() as session:
        find(session)


def python():
    import asyncio
    import configparser
    import io
    import json
    import subprocess
    import threading
    import urllib.request
    import xml.etree.ElementTree as ElementTree
    import zipfile

    def with_a_lock():
        error = ValueError("held")
        error.lock, error.number, error.thread = threading.Lock(), 3, threading.current_thread()
        raise error

    def with_a_generator_in_its_arguments():
        raise LookupError("seven", (n for n in range(3)))

    return {
        "urllib.error.HTTPError": lambda: urllib.request.urlopen(os.environ["ORDMAP_URL"]),
        "urllib.error.URLError": lambda: urllib.request.urlopen(f"http://{NOWHERE}"),
        "JSONDecodeError": lambda: json.loads("{"),
        "ParseError": lambda: ElementTree.fromstring("<a>"),
        "CalledProcessError": lambda: subprocess.run(["false"], check=True),
        "FileNotFoundError of two files": lambda: os.rename("/nope1", "/nope2"),
        "UnicodeDecodeError": lambda: b"\xff".decode(),
        "SyntaxError": lambda: compile("a b", "file.py", "exec"),
        "NameError": lambda: eval("nope"),
        "AttributeError": lambda: object().nope,
        "ModuleNotFoundError": lambda: __import__("nope_nope"),
        "KeyError": lambda: {}["a"],
        "MissingSectionHeaderError": lambda: configparser.ConfigParser().read_string("x"),
        "BadZipFile": lambda: zipfile.ZipFile(io.BytesIO(b"x")),
        "IncompleteReadError": lambda: _raise(asyncio.IncompleteReadError(b"x", 3)),
        "ExceptionGroup": lambda: _raise(ExceptionGroup("two", [ValueError(1), OSError(2, "no")])),
        "one with a constructor that demands": lambda: _raise(DemandingError(code=3, payload=[1])),
        "one with a lock and a thread": with_a_lock,
        "one with a generator among its arguments": with_a_generator_in_its_arguments,
    }


def requests():
    import requests

    return {
        "HTTPError": lambda: requests.get(os.environ["ORDMAP_URL"], timeout=30).raise_for_status(),
        "ConnectionError": lambda: requests.get(f"http://{NOWHERE}", timeout=30),
        "JSONDecodeError": lambda: requests.get(os.environ["ORDMAP_URL"], timeout=30).json(),
    }


def urllib3():
    import urllib3

    return {"MaxRetryError": lambda: urllib3.PoolManager().request("GET", f"http://{NOWHERE}", retries=0)}


def httpx():
    import httpx

    return {
        "HTTPStatusError": lambda: httpx.get(os.environ["ORDMAP_URL"]).raise_for_status(),
        "ConnectError": lambda: httpx.get(f"http://{NOWHERE}"),
    }


def aiohttp():
    import asyncio

    import aiohttp

    async def get(url):
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            response.raise_for_status()

    return {
        "ClientResponseError": lambda: asyncio.run(get(os.environ["ORDMAP_URL"])),
        "ClientConnectorError": lambda: asyncio.run(get(f"http://{NOWHERE}")),
    }


def numpy():
    import numpy as np

    return {
        "AxisError": lambda: np.zeros(3).sum(axis=4),
        "LinAlgError": lambda: np.linalg.inv(np.zeros((2, 2))),
    }


def grpcio():
    import grpc

    return {"InactiveRpcError": lambda: grpc.insecure_channel(NOWHERE).unary_unary("/a/b")(b"", timeout=5)}


def polars():
    import polars as pl

    return {"ColumnNotFoundError": lambda: pl.DataFrame({"a": [1]}).select("b")}


def tenacity():
    import tenacity

    return {"RetryError": lambda: tenacity.Retrying(stop=tenacity.stop_after_attempt(1))(lambda: 1 / 0)}


def click():
    import click

    return {"BadParameter": lambda: _raise(click.BadParameter("bad", param_hint="--x"))}


def pydantic():
    import pydantic

    return {"ValidationError": lambda: pydantic.TypeAdapter(int).validate_python("no")}


def botocore():
    from botocore.exceptions import ClientError

    return {"ClientError": lambda: _raise(ClientError({"Error": {"Code": "NoSuchKey", "Message": "m"}}, "GetObject"))}


def sqlalchemy():
    import sqlalchemy as sa

    return {"OperationalError": lambda: sa.create_engine("sqlite://").connect().execute(sa.text("select x"))}


def psycopg():
    import psycopg

    return {"OperationalError": lambda: psycopg.connect("host=127.0.0.1 port=1")}


def lxml():
    from lxml import etree

    return {"XMLSyntaxError": lambda: etree.fromstring("<a>")}


def pyyaml():
    import yaml

    return {"ParserError": lambda: yaml.safe_load("a: [")}


def jsonschema():
    import jsonschema

    return {"ValidationError": lambda: jsonschema.validate(1, {"type": "string"})}


def pandas():
    import pandas as pd

    return {
        "DateParseError": lambda: pd.to_datetime("nope"),
        "ParserError": lambda: pd.read_csv(__import__("io").StringIO("a\n1,2\n1,2,3")),
    }


def pyarrow():
    import pyarrow as pa

    return {"ArrowInvalid": lambda: pa.array(["x"]).cast(pa.int64())}


def pillow():
    import io

    from PIL import Image

    return {"UnidentifiedImageError": lambda: Image.open(io.BytesIO(b"x"))}


def h5py():
    import h5py

    return {"FileNotFoundError": lambda: h5py.File("/nope.h5")}


def marshmallow():
    import marshmallow

    class Schema(marshmallow.Schema):
        x = marshmallow.fields.Int(required=True)

    return {"ValidationError": lambda: Schema().load({})}


def redis():
    import redis

    return {"ConnectionError": lambda: redis.Redis(port=1).get("x")}


def jinja2():
    import jinja2

    return {
        "TemplateSyntaxError": lambda: jinja2.Template("{% if %}"),
        "UndefinedError": lambda: jinja2.Template("{{ a.b }}").render(),
    }


def werkzeug():
    from werkzeug import exceptions

    return {"NotFound": lambda: exceptions.abort(404, "no")}


def fastapi():
    import fastapi

    return {"HTTPException": lambda: _raise(fastapi.HTTPException(418, {"a": 1}, {"b": "c"}))}


def django():
    from django.core.exceptions import ValidationError

    return {"ValidationError": lambda: _raise(ValidationError("bad", code="c", params={"a": 1}))}


def celery():
    from celery.exceptions import Retry

    return {"Retry": lambda: _raise(Retry("later", ValueError(1), 3))}


def attrs():
    import attrs

    return {"NotAnAttrsClassError": lambda: attrs.fields(int) if False else attrs.fields(type("A", (), {}))}


def scipy():
    from scipy import linalg

    return {"LinAlgError": lambda: linalg.cholesky([[0.0, 0.0], [0.0, 0.0]])}


def zarr():
    import zarr

    return {"FileNotFoundError": lambda: zarr.open_array("/nope.zarr", mode="r")}


def lmdb():
    import lmdb

    return {"Error": lambda: lmdb.open("/nope/nope")}


def sympy():
    import sympy

    return {"SympifyError": lambda: sympy.sympify("1 +")}


def networkx():
    import networkx as nx

    return {"NodeNotFound": lambda: nx.shortest_path(nx.Graph(), 1, 2)}


def msgpack():
    import msgpack

    return {"ExtraData": lambda: msgpack.unpackb(b"\x01\x02")}


def packaging():
    from packaging.version import Version

    return {"InvalidVersion": lambda: Version("nope")}


def trio():
    import trio

    async def wait():
        with trio.fail_after(0):
            await trio.sleep(1)

    return {"TooSlowError": lambda: trio.run(wait)}


def av():
    import av

    return {"InvalidDataError": lambda: av.open("/dev/null")}


def numba():
    import numba

    return {"TypingError": lambda: numba.njit(lambda x: x.nope)(1)}


def torch():
    import torch

    return {"RuntimeError": lambda: torch.ones(2) @ torch.ones(3)}
