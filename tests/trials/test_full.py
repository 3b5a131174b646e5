"""The trials that take minutes or need processes of their own."""

import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_files
from support import trial
from support.forwarding import Forwarding
from support.node import Node
from support.orthanc import dataset_digest
from support.proxy import Proxy
from support.raw_pacs import Command, raw_pacs, response
from support.receiver_process import stand_alone
from support.receiving import CT, Listening, Scu, command, ct, encode, encoded_dataset, p_data
from support.scripted import ABORT, ScriptedPacs, scripted
from support.waiting import PATIENCE_S, until

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.domain.rules import ForwardRule

pytestmark = pytest.mark.acceptance

MEGABYTE = 1024**2
UID = str(ct().SOPInstanceUID)
