"""The class tables of NYU Depth v2: its 894 raw names, the 40 and the 13 classes, categories.

The labelled ``.mat`` holds raw names only. The maps come from where their authors published them:

- 894 to 40: Gupta, Arbelaez, Malik, "Perceptual Organization and Recognition of Indoor Scenes from
  RGB-D Images", CVPR 2013: ``classMapping40.mat`` (``mapClass``, ``allClassName``) of the code
  release. 37 classes are the raw label of that very name; all others fall to the last three.
  Checked against the columns ``nyuClass`` and ``nyu40id`` of two tables made for other data sets:
  Matterport3D's ``category_mapping.tsv`` (272 raw names) agrees in all but *book*, ScanNet's
  ``scannetv2-labels.combined.tsv`` (200 raw names) in all but *book* and *coffee table*: both put
  *book* to books (23), the publication to otherprop (40). The publication is followed, since
  all results on NYUv2 are on its labels.
- 40 to 13: Couprie, Farabet, Najman, LeCun, "Indoor Semantic Segmentation using depth
  information" (arXiv 1301.3572), as ``class13Mapping.mat`` of Handa et al. (SceneNet, CVPR 2016).
  Applied to the 40-class maps of 500 frames of the test part, it gave the published 13-class maps
  in each of 38.4 million pixels; all 40 classes occur there.
"""

from collections.abc import Mapping

import numpy as np

from mmmask3d.datasets.classes import INDOOR_STUFF, NYU13_CLASSES, NYU40_CLASSES

#: Number of raw names in the labelled ``.mat``.
NUM_RAW_CLASSES = 894


def normal_name(name: str) -> str:
    """Raw name with single blanks; one of the 894 is stored with two."""
    return ' '.join(name.split())


def _names(text: str) -> tuple[str, ...]:
    return tuple(normal_name(name) for name in text.split(','))


# fmt: off
_OTHERSTRUCTURE = _names(
    '''
air conditioner, air duct, air vent, baby gate, banister, bar, blackboard, board, cable rack,
chandelier, chimney, circuit breaker box, classroom board, column, curtain rod, dishwasher, door
window  reflection, door curtain, door facing trimreflection, door frame, door way, door way arch,
doorreflection, drain, electric box, fireplace, fish tank, floor trim, garage door, gate, glass,
glass pane, glass rack, green screen, grill, iron grill, kitchen island, light, light switch,
light switchreflection, lighting track, mail shelf, mailshelf, mantel, mantle, oven, phone jack,
projector screen, railing, range hood, reflection of window shutters, shower base, spice rack,
spice stand, stairs, storage space, stove, towel rod, track light, tree sculpture, wall stand,
water fountain, window box, window cover, window frame, window seat, window shelf, wooden pillar
'''
)

_OTHERFURNITURE = _names(
    '''
baby chair, barrel, bassinet, bean bag, bench, bookrack, bunk bed, cat bed, cat cage, chart stand,
chest, cloth drying stand, clothing dryer, clothing drying rack, clothing hamper, clothing hanger,
clothing washer, coffee table, cradle, crate, crib, desk drawer, desser, display board, display
case, dog bed, dog cage, doily, doll house, dolly, drawer, drying rack, drying stand, educational
display, excercise equipment, excercise machine, file box, file stand, filing shelves, flipboard,
foosball table, foot rest, furnace, furniture, garbage bin, grandfather clock, headboard, heater,
indoor fountain, ironing board, ladder, lectern, luggage rack, mattress, music stand, ottoman,
piano, piano bench, ping pong table, playpen, pool table, radiator, room divider, slide, stacked
chairs, stacked plastic racks, stand, storage chest, storage rack, storage shelvesbooks, stroller,
tent, toys rack, toys shelf, trampoline, treadmill, trolly, tv stand, wall divider, wardrobe,
washing machine, water cooler
'''
)

_OTHERPROP = _names(
    '''
alarm, alarm clock, album, aluminium foil, american flag, antenna, apple, ashtray, avocado, back
scrubber, backpack, bag of bagels, bag of chips, bag of flour, bag of hot dog buns, bag of oreo,
bagel, baking dish, ball, balloon, banana, banana peel, bar of soap, baseball, basket, basketball,
basketball hoop, bed sheets, bedding package, beeper, belt, bicycle, bicycle helmet, bin, binder,
blanket, blender, book, book holder, bookend, boomerang, bottle, bottle of comet, bottle of
contact lens solution, bottle of hand wash liquid, bottle of ketchup, bottle of liquid, bottle of
listerine, bottle of perfume, bottle of soap, bowl, box of paper, box of ziplock bags, bracelet,
bread, brick, briefcase, broom, bucket, bulb, business cards, butterfly sculpture, button, cable
box, cable modem, cables, cactus, cake, calculator, calendar, camera, can, can of beer, can of
food, can opener, candelabra, candle, candlestick, cane, canister, cannister, cans of cat food,
cap stand, car, cardboard sheet, cardboard tube, cart, carton, case, casserole dish, cat, cat
house, cd, cd disc, celery, cell phone, cell phone charger, centerpiece, ceramic frog,
certificate, chalkboard, chapstick, charger, charger and wire, chart, chart roll, chessboard,
child carrier, cleaner, cleaning wipes, clipboard, clock, cloth bag, clothing detergent, clothing
iron, coaster, coat hanger, coffee bag, coffee grinder, coffee machine, coffee packet, coffee pot,
coins, coke bottle, collander, cologne, comb, comforter, computer, computer disk, conch shell,
cone, console controller, console system, contact lens case, contact lens solution bottle,
container, container of skin cream, cooking pan, cooking pot cover, copper vessel, cordless phone,
cordless telephone, cork board, corkscrew, corn, crayon, cream, cream tube, crock pot, cup,
cutting board, decanter, decoration item, decorative bottle, decorative bowl, decorative candle,
decorative dish, decorative egg, decorative item, decorative plate, decorative platter, deoderant,
desk mat, dish brush, dish cover, dish rack, dish scrubber, dishes, display platter, dog, dog
bowl, dog toy, doll, dollar bill, door knob, door lock, drawer handle, drawer knob, drum, duck,
duster, dvd, dvd player, dvds, earplugs, eggplant, eggs, electric mixer, electric toothbrush,
electric toothbrush base, electrical kettle, electrical outlet, electronic drumset, envelope,
envelopes, eraser, ethernet jack, excercise ball, exit sign, eye glasses, eyeball plastic ball,
face wash cream, fan, faucet, faucet handle, fax machine, fiberglass case, figurine, file, file
container, file holder, file pad, fire alarm, fire extinguisher, flag, flashcard, flashlight,
flask, flask set, flatbed scanner, flower, flower basket, flower box, flower pot, folder, folders,
food processor, food wrapped on a tray, football, fork, framed certificate, fruit, fruit basket,
fruit platter, fruit stand, fruitplate, frying pan, game system, game table, garbage bag, garlic,
gift wrapping, gift wrapping roll, glass baking dish, glass box, glass container, glass dish,
glass pot, glass set, glass ware, globe, globe stand, glove, gold piece, grapefruit, guitar,
guitar case, hair brush, hair dryer, hamburger bun, hammer, hand blender, hand fan, hand
sanitizer, hand sanitizer dispenser, hand sculpture, hand weight, handle, hanger, hangers, hanging
hooks, hat, head phone, head phones, headband, headphones, heating tray, hockey glove, hockey
stick, hole puncher, hookah, hooks, hoola hoop, horse toy, hot dogs, hot water heater, humidifier,
id card, incense candle, incense holder, inkwell, ipad, iphone, ipod, ipod dock, iron box, jacket,
jar, jeans, jersey, jug, juicer, karate belts, key, keyboard, kichen towel, kinect, kitchen
container plastic, kitchen items, kitchen utensil, kitchen utensils, kiwi, knife, knife rack,
knob, knobs, label, ladel, lamp shade, laptop, laundry basket, laundry detergent jug, lazy susan,
leg of a girl, lego, lemon, letter stand, lid, lid of jar, life jacket, light bulb, lint comb,
lint roller, litter box, lock, luggage, lunch bag, machine, magazine, magazine holder, magic
8ball, magnet, mail tray, makeup brush, manilla envelope, map, mask, matchbox, measuring cup,
medal, medicine tube, mellon, menorah, mens suit, mens tie, mezuza, microphone, microphone stand,
microwave, mini display platform, model boat, modem, money, monitor, mortar and pestle, motion
camera, mouse, mouse pad, muffins, mug hanger, mug holder, music keyboard, music stereo,
nailclipper, napkin, napkin dispenser, napkin holder, napkin ring, necklace, necklace holder,
newspapers, notebook, notecards, oil container, onion, orange, orange juicer, orange plastic cap,
ornamental item, ornamental plant, ornamental pot, oven handle, oven mitt, package of bedroom
sheets, package of bottled water, package of water, pan, paper bundle, paper cutter, paper holder,
paper rack, paper towel, paper towel dispenser, paper towel holder, paper tray, paper weight,
papers, peach, pen, pen box, pen cup, pen holder, pen stand, pencil, pencil holder, pepper, pepper
grinder, pepper shaker, perfume, perfume box, personal care liquid, photo, photo album, picture of
fish, piece of wood, pig, pineapple, ping pong ball, ping pong racket, ping pong racquet, pipe,
pitcher, pizza box, placard, placemat, plant, plant pot, plaque, plastic bowl, plastic box,
plastic chair, plastic crate, plastic cup of coffee, plastic dish, plastic rack, plastic toy
container, plastic tray, plastic tub, plate, platter, pool ball, pool sticks, poster board, poster
case, pot, potato, power surge, printer, projector, puppy toy, purse, pyramid, quill, quilt,
radio, rags, razor, remote control, roll of paper towels, roll of toilet paper, rolled carpet,
rolled up rug, rope, router, rug, ruler, salt and pepper, salt container, salt shaker, saucer,
scale, scarf, scenary, scissor, sculpture, sculpture of the chrysler building, sculpture of the
eiffel tower, sculpture of the empire state building, security camera, server, serving dish,
serving platter, serving spoon, sewing machine, shaver, shaving cream, sheet, sheet music, sheet
of metal, sheets, shelf frame, shirts in hanger, shoe, shoe hanger, shoe rack, shoelace, shofar,
shopping baskets, shopping cart, shorts, shovel, show piece, shower cap, shower head, shower hose,
shower knob, shower pipe, shower tube, sifter, sign, sink protector, six pack of beer, sleeping
bag, soap, soap box, soap dish, soap holder, soap stand, soap tray, soccer ball, sock, soft toy,
soft toy group, spatula, speaker, spice bottle, sponge, spoon, spoon sets, spoon stand, spot
light, squash, squeeze tube, stack of plates, stacked bins  boxes, stamp, staple remover, stapler,
steamer, step stool, stereo, stick, sticker, sticks, stones, stool, storage bin, stove burner,
stuffed animal, styrofoam object, suger jar, suit jacket, suitcase, surge protect, surge
protector, switchbox, table runner, tablecloth, tag, tape, tape dispenser, tea box, tea cannister,
tea coaster, tea kettle, tea pot, telephone, telephone cord, telescope, tennis racket, thermostat,
throw, tin foil, tissue, tissue box, tissue roll, toaster, toaster oven, toilet bowl brush, toilet
brush, toilet paper, toilet paper holder, toilet plunger, toiletries, toiletries bag, toothbrush,
toothbrush holder, toothpaste, toothpaste holder, torah, torch, toy, toy apple, toy bin, toy boat,
toy bottle, toy box, toy car, toy cash register, toy chair, toy chest, toy cube, toy cuboid, toy
cylinder, toy dog, toy doll, toy horse, toy house, toy kitchen, toy phone, toy plane, toy pyramid,
toy rectangle, toy shelf, toy sink, toy sofa, toy stroller, toy table, toy tree, toy triangle, toy
truck, toy trucks, toyhouse, toys basket, toys box, travel bag, tray, tricycle, trinket, trivet,
trolley, trophy, tub of tupperware, tumbler, tuna cans, tupperware, typewriter, umbrella, unknown,
urn, usb drive, utensil, utensil container, utensils, vacuum cleaner, vase, vasoline, vegetable,
vegetable peeler, vegetables, vessel, vessel set, vessels, vhs tapes, video game, vuvuzela, waffle
maker, walkie talkie, walkietalkie, wall decoration, wall hand sanitizer dispenser, wallet, watch,
water carboy, water dispenser, water filter, water heater, water purifier, watermellon, webcam,
whisk, whiteboard eraser, whiteboard marker, wii, wine, wine accessory, wine bottle, wine glass,
wine rack, wire, wire basket, wire board, wire rack, wire tray, wooden container, wooden kitchen
utensils, wooden plank, wooden planks, wooden toy, wooden utensil, wooden utensils, wreathe, xbox,
yarmulka, yellow pepper, yoga mat
'''
)
# fmt: on

#: NYU-40 id (1..40) of each raw name.
RAW_TO_NYU40: Mapping[str, int] = {
    **{name: i for i, name in enumerate(NYU40_CLASSES[:37], 1)},
    **dict.fromkeys(_OTHERSTRUCTURE, 38),
    **dict.fromkeys(_OTHERFURNITURE, 39),
    **dict.fromkeys(_OTHERPROP, 40),
}

#: NYU-13 id of each NYU-40 id, 0 (unlabelled) included.
NYU40_TO_NYU13 = np.array(
    [
        0,
        12, 5, 6, 1, 4, 9, 10, 12, 13, 6,
        8, 6, 13, 10, 6, 13, 6, 7, 7, 5,
        7, 3, 2, 6, 11, 7, 7, 7, 7, 7,
        7, 6, 7, 7, 7, 7, 7, 7, 6, 7,
    ],
    np.uint8,
)  # fmt: skip

_GUPTA19 = (
    'bathtub', 'bed', 'bookshelf', 'box', 'chair', 'counter', 'desk', 'door', 'dresser',
    'garbage bin', 'lamp', 'monitor', 'night stand', 'pillow', 'sink', 'sofa', 'table',
    'television', 'toilet',
)  # fmt: skip
_PRI3D9 = ('bed', 'books', 'chair', 'furniture', 'picture', 'sofa', 'table', 'tv', 'window')

#: Names of the choices of COCO categories.
CATEGORY_SETS = ('nyu40', 'gupta19', 'nyu13')


def instance_categories(which: str) -> dict[int, str]:
    """COCO categories of a choice, by id.

    - ``nyu40``: the 40 classes without wall, floor and ceiling, which enclose the room and are
      not counted (EMSANet, Seichter et al., IJCNN 2022, draws the same line); ids of NYU-40.
    - ``gupta19``: the 19 object classes of Gupta et al., "Learning Rich Features from RGB-D
      Images for Object Detection and Segmentation", ECCV 2014; ids 1..19 in alphabetical order.
    - ``nyu13``: the nine of Pri3D (Hou et al., ICCV 2021), which Mask3D compares with: 13 classes
      without ceiling, floor, objects and wall; ids of NYU-13.
    """
    if which == 'gupta19':
        return dict(enumerate(_GUPTA19, 1))
    classes = NYU13_CLASSES if which == 'nyu13' else NYU40_CLASSES
    wanted = _PRI3D9 if which == 'nyu13' else [c for c in classes if c not in INDOOR_STUFF]
    return {i: name for i, name in enumerate(classes, 1) if name in wanted}


def category_of_raw(raw_name: str, nyu40: int, nyu13: int, which: str) -> int:
    """COCO category id of a raw label, 0 for none.

    Args:
        raw_name: Of the ``.mat``.
        nyu40: Its NYU-40 id.
        nyu13: Its NYU-13 id.
        which: One of :data:`CATEGORY_SETS`.
    """
    if which == 'gupta19':
        name = normal_name(raw_name)
        return _GUPTA19.index(name) + 1 if name in _GUPTA19 else 0
    category = nyu13 if which == 'nyu13' else nyu40
    return category if category in instance_categories(which) else 0
